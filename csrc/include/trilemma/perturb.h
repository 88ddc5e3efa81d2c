// The noised state and the training target in one pass: z = alpha x0 + sigma xi, target = a x0 + b xi.

#pragma once

#include <cstdint>

namespace trilemma {

constexpr uint32_t kPerturbStream = 2;

// One call. All tensors are contiguous [samples, elements] of one element type; z and target may be x0 or noise.
struct Perturb {
  int64_t samples = 0;
  int64_t elements = 0;
  void* z = nullptr;
  void* target = nullptr;
  const void* x0 = nullptr;
  const double* coefficients = nullptr;  // [samples, 4]: alpha, sigma, a, b
  const void* noise = nullptr;           // xi; made from the key below where null
  const int64_t* indices = nullptr;
  uint64_t seed = 0;
  uint32_t step = 0;
};

}  // namespace trilemma
