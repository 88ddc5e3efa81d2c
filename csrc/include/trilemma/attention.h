// Attention on raw pointers. No torch.
//
//   s_ij = scale <q_i, k_j>,  p_ij = exp(s_ij) / sum_j exp(s_ij),  out_i = sum_j p_ij v_j,  lse_i = log sum_j exp(s_ij)

#pragma once

#include <cstdint>

namespace trilemma {

// A tensor [batch, heads, tokens, depth] by its strides in elements. The kernels take those whose depth or whose
// tokens are contiguous.
struct Heads {
  void* data = nullptr;
  int64_t batch = 0, head = 0, token = 0, depth = 1;

  bool depth_contiguous() const { return depth == 1; }
};

// One call. All tensors but lse are of one element type; the depth is a multiple of 8.
struct Attention {
  int64_t batch = 0, heads = 0, queries = 0, keys = 0, depth = 0;
  float scale = 1;
  Heads q, k, v, out;
  float* lse = nullptr;  // [batch, heads, queries]
};

struct AttentionBackward {
  int64_t batch = 0, heads = 0, queries = 0, keys = 0, depth = 0;
  float scale = 1;
  Heads q, k, v, out, dout;
  Heads dq, dk, dv;
  const float* lse = nullptr;  // [batch, heads, queries]
};

// Work of the forward is cut into blocks of queries, head by head; of the backward into heads. Any cut gives the same
// bits.
constexpr int kQueryBlock = 32;

static inline int64_t query_blocks(int64_t queries) { return (queries + kQueryBlock - 1) / kQueryBlock; }

}  // namespace trilemma
