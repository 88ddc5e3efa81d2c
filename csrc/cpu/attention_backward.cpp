#include "trilemma/attention.h"
namespace trilemma::cpu::TRILEMMA_ISA {
void attention_backward_float32(const AttentionBackward&, int64_t, int64_t) {}
void attention_backward_bfloat16(const AttentionBackward&, int64_t, int64_t) {}
void attention_backward_float16(const AttentionBackward&, int64_t, int64_t) {}
}
