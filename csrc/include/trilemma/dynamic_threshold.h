// Dynamic thresholding: s = max(floor, quantile of |x|) a sample, out = clip(x, -s, s) floor / s.

#pragma once

#include <cstdint>

namespace trilemma {

// One call. Both tensors are contiguous [samples, elements] of one element type, elements >= 1; out may be x.
struct DynamicThreshold {
  int64_t samples = 0;
  int64_t elements = 0;
  void* out = nullptr;
  const void* x = nullptr;
  double quantile = 0.995;
  double floor = 1.0;
};

}  // namespace trilemma
