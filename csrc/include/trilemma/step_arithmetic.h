// One element of the linear step, for a state of K components: the order of its operations, on every device.

#pragma once

#include "trilemma/linear_step.h"

namespace trilemma {

// f of the element from its state and its mixture of branches.
template <int K>
TRILEMMA_HD float predict(const Row& row, const float (&state)[K], float mixture) {
  float u = row.p[0] * state[0];
  for (int k = 1; k < K; ++k) u = u + row.p[k] * state[k];
  u = u + row.q * mixture;
  u = u < -row.clip ? -row.clip : u;  // comparisons, not fmin and fmax: NaN stays
  u = u > row.clip ? row.clip : u;
  float prediction = row.r[0] * state[0];
  for (int k = 1; k < K; ++k) prediction = prediction + row.r[k] * state[k];
  return prediction + row.s * u;
}

// What component k of z' begins with, A base + B_0 f; other states, lags and noise are then added one after the other.
template <int K>
TRILEMMA_HD float begin_next(const Row& row, int k, const float (&base)[K], float prediction) {
  float sum = row.a[k * K] * base[0];
  for (int l = 1; l < K; ++l) sum = sum + row.a[k * K + l] * base[l];
  return sum + row.b[0][k] * prediction;
}

}  // namespace trilemma
