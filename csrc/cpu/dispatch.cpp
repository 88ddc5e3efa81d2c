// Which of the built instruction sets this machine runs, found once.

#include <cstring>

#include "trilemma/cpu.h"

namespace trilemma::cpu {

#define TRILEMMA_DECLARE_KERNEL(name, Arguments)            \
  void name##_float32(const Arguments&, int64_t, int64_t);  \
  void name##_bfloat16(const Arguments&, int64_t, int64_t); \
  void name##_float16(const Arguments&, int64_t, int64_t);
#define TRILEMMA_KERNEL(isa, name) {isa::name##_float32, isa::name##_bfloat16, isa::name##_float16}

#define TRILEMMA_DECLARE(isa)                                    \
  namespace isa {                                                \
  TRILEMMA_DECLARE_KERNEL(linear_step, LinearStep)               \
  TRILEMMA_DECLARE_KERNEL(normal, NormalFill)                    \
  TRILEMMA_DECLARE_KERNEL(perturb, Perturb)                      \
  TRILEMMA_DECLARE_KERNEL(dynamic_threshold, DynamicThreshold)   \
  TRILEMMA_DECLARE_KERNEL(group_norm, GroupNorm)                 \
  TRILEMMA_DECLARE_KERNEL(group_norm_backward, GroupNorm)        \
  TRILEMMA_DECLARE_KERNEL(layer_norm, LayerNorm)                 \
  TRILEMMA_DECLARE_KERNEL(layer_norm_backward, LayerNorm)        \
  TRILEMMA_DECLARE_KERNEL(glu, Glu)                              \
  TRILEMMA_DECLARE_KERNEL(glu_backward, Glu)                     \
  TRILEMMA_DECLARE_KERNEL(attention, Attention)                  \
  TRILEMMA_DECLARE_KERNEL(attention_backward, AttentionBackward) \
  TRILEMMA_DECLARE_KERNEL(conv3x3, Conv3x3)                      \
  }
#define TRILEMMA_KERNELS(isa, name)                                                                      \
  {name, TRILEMMA_KERNEL(isa, linear_step), TRILEMMA_KERNEL(isa, normal), TRILEMMA_KERNEL(isa, perturb), \
   TRILEMMA_KERNEL(isa, dynamic_threshold), TRILEMMA_KERNEL(isa, group_norm),                            \
   TRILEMMA_KERNEL(isa, group_norm_backward), TRILEMMA_KERNEL(isa, layer_norm),                          \
   TRILEMMA_KERNEL(isa, layer_norm_backward), TRILEMMA_KERNEL(isa, glu), TRILEMMA_KERNEL(isa, glu_backward), \
   TRILEMMA_KERNEL(isa, attention),                                                                      \
   TRILEMMA_KERNEL(isa, attention_backward), TRILEMMA_KERNEL(isa, conv3x3)}

TRILEMMA_DECLARE(baseline)
#ifdef TRILEMMA_X86_64_LEVELS
TRILEMMA_DECLARE(x86_64_v3)
TRILEMMA_DECLARE(x86_64_v4)
#endif
#ifdef TRILEMMA_AVX512_BF16
TRILEMMA_DECLARE(x86_64_v4_bf16)
#endif

namespace {

constexpr Kernels kBuilt[] = {
    TRILEMMA_KERNELS(baseline, "baseline"),
#ifdef TRILEMMA_X86_64_LEVELS
    TRILEMMA_KERNELS(x86_64_v3, "x86-64-v3"),
    TRILEMMA_KERNELS(x86_64_v4, "x86-64-v4"),
#endif
#ifdef TRILEMMA_AVX512_BF16
    TRILEMMA_KERNELS(x86_64_v4_bf16, "x86-64-v4-bf16"),
#endif
};
constexpr int kCount = sizeof(kBuilt) / sizeof(kBuilt[0]);

}  // namespace

const Kernels* built(int* count) {
  *count = kCount;
  return kBuilt;
}

bool runs_here([[maybe_unused]] const Kernels& kernels) {
#ifdef TRILEMMA_X86_64_LEVELS
  if (!std::strcmp(kernels.isa, "x86-64-v3")) return __builtin_cpu_supports("x86-64-v3");
  if (!std::strcmp(kernels.isa, "x86-64-v4")) return __builtin_cpu_supports("x86-64-v4");
#endif
#ifdef TRILEMMA_AVX512_BF16
  if (!std::strcmp(kernels.isa, "x86-64-v4-bf16"))
    return __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16");
#endif
  return true;
}

const Kernels& best() {
  static const Kernels& chosen = [] () -> const Kernels& {
    int i = kCount - 1;
    while (i > 0 && !runs_here(kBuilt[i])) --i;
    return kBuilt[i];
  }();
  return chosen;
}

}  // namespace trilemma::cpu
