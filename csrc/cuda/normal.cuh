// Keyed standard normals in a kernel.

#pragma once

#include "trilemma/box_muller.h"

namespace {

// The normals of elements [element, element + V) of a sample; where V is not 1, `element` is a multiple of V.
template <int V>
__device__ __forceinline__ void normals_at(trilemma::PhiloxCounter start, trilemma::PhiloxKey key, int64_t element,
                                           float (&normals)[V]) {
  static_assert(V == 1 || V % 4 == 0);
  if constexpr (V == 1) {
    float four[4];
    trilemma::four_normals(start, key, static_cast<uint32_t>(element / 4), four);
    const int lane = static_cast<int>(element % 4);
    normals[0] = lane < 2 ? (lane == 0 ? four[0] : four[1]) : (lane == 2 ? four[2] : four[3]);
  } else {
#pragma unroll
    for (int i = 0; i < V; i += 4)
      trilemma::four_normals(start, key, static_cast<uint32_t>((element + i) / 4), normals + i);
  }
}

}  // namespace
