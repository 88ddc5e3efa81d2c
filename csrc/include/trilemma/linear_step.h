// The fused linear step on raw pointers. No torch, no allocation.
//
//   m = sum_g w_g o_g,  u = clip(P z + Q m),  f = R z + S u,  z' = A base + B_0 f + sum_j B_j h_j + C xi

#pragma once

#include <cstdint>

namespace trilemma {

constexpr int kMaxBranches = 4;
constexpr int kMaxLags = 7;

// The coefficients of one row, narrowed from the float64 table.
struct Row {
  float a, b[1 + kMaxLags], c, p, q, r, s, clip, w[kMaxBranches];
};

// One call. All tensors are contiguous and of one element type; `out` holds `replicas` batches and `output`
// `branches` batches of [samples, elements]. An input may be the very memory of a batch of `out` (element for
// element), never a shifted part of it.
struct LinearStep {
  Row row;
  int64_t samples = 0;
  int64_t elements = 0;  // of one sample
  int replicas = 1;
  int branches = 1;
  int lags = 0;
  void* out = nullptr;
  const void* z = nullptr;
  const void* base = nullptr;
  const void* output = nullptr;
  void* prediction = nullptr;              // receives f; may be one of `history`
  const void* history[kMaxLags] = {};      // h_1 .. h_lags
  const void* noise = nullptr;             // xi; made from the key below where null and C is not 0
  const int64_t* indices = nullptr;        // sample indices of the keyed noise
  uint64_t seed = 0;
  uint32_t step = 0;
  int32_t* bad_row = nullptr;              // [samples]; set to `step` where negative and z' is not finite
};

// Standard normals of samples [samples, elements], by key.
struct NormalFill {
  int64_t samples = 0;
  int64_t elements = 0;
  void* out = nullptr;
  const int64_t* indices = nullptr;
  uint64_t seed = 0;
  uint32_t step = 0;
  uint32_t stream = 0;
};

// Work is cut into blocks of one sample each, numbered sample by sample; any cut of the numbers gives the same bits.
constexpr int kBlock = 256;

static inline int64_t blocks(int64_t samples, int64_t elements) { return samples * ((elements + kBlock - 1) / kBlock); }

}  // namespace trilemma
