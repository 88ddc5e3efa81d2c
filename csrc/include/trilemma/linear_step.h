// The fused linear step on raw pointers. No torch, no allocation.
//
//   m = sum_g w_g o_g,  u = clip(P z + Q m),  f = R z + S u
//   z' = A base + B_0 f + sum_k D_k z_k + sum_j B_j h_j + C xi
//
// A state of two components holds them one after the other in each sample; A, C and D_k are then 2x2, B_j, P and R have
// two entries, and o, f and h are half as long as the state.

#pragma once

#include <cstdint>

#include "trilemma/host_device.h"

namespace trilemma {

constexpr int kMaxBranches = 4;
constexpr int kMaxLags = 7;
constexpr int kMaxOthers = 3;
constexpr int kMaxComponents = 2;

// The coefficients of one row, narrowed from the float64 table. Only the first `components` of a vector count, and the
// first components x components of a matrix, row by row.
struct Row {
  float a[kMaxComponents * kMaxComponents];
  float b[1 + kMaxLags][kMaxComponents];
  float c[kMaxComponents * kMaxComponents];
  float p[kMaxComponents], q, r[kMaxComponents], s, clip, w[kMaxBranches];
  float d[kMaxOthers][kMaxComponents * kMaxComponents];

  TRILEMMA_HD bool noisy(int components) const {
    for (int i = 0; i < components * components; ++i)
      if (c[i] != 0.0f) return true;
    return false;
  }
};

TRILEMMA_HD constexpr int row_width(int components) {
  return (2 + kMaxOthers) * components * components + (3 + kMaxLags) * components + 3 + kMaxBranches;
}

// A row of the table, whose columns core/trilemma/ops/layout.py names.
template <class Number>
TRILEMMA_HD Row read_row(const Number* in, int components) {
  Row row{};
  const auto take = [&in](float* to, int count) {
    for (int i = 0; i < count; ++i) to[i] = static_cast<float>(*in++);
  };
  take(row.a, components * components);
  for (auto& lag : row.b) take(lag, components);
  take(row.c, components * components);
  take(row.p, components);
  take(&row.q, 1);
  take(row.r, components);
  take(&row.s, 1);
  take(&row.clip, 1);
  take(row.w, kMaxBranches);
  for (auto& other : row.d) take(other, components * components);
  return row;
}

// One call. All tensors are contiguous and of one element type; `out` holds `replicas` batches and `output`
// `branches` batches of [samples, elements] predictions, none of which makes m = 0. An input may be the very memory of a batch of `out` (element for
// element), never a shifted part of it.
struct LinearStep {
  Row row;
  int64_t samples = 0;
  int64_t elements = 0;  // of one prediction; a state has `components` times as many
  int components = 1;
  int replicas = 1;
  int branches = 1;
  int lags = 0;
  int others = 0;
  bool streamed = false;  // out is written past the caches
  void* out = nullptr;
  const void* z = nullptr;
  const void* base = nullptr;
  const void* output = nullptr;
  const void* other[kMaxOthers] = {};      // z_1 .. z_others, further states
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
