// Keyed standard normals on the CPU, many at a time. Compiled once an instruction set: internal linkage.

#pragma once

#include <cstdint>

#include "trilemma/box_muller.h"

namespace {

// Normals are made 64 at a time, from 16 counters.
constexpr int kGroup = 64;

// The normals of elements [64 group, 64 group + 64) of a sample.
__attribute__((always_inline)) inline void normal_group(trilemma::PhiloxCounter start, trilemma::PhiloxKey key,
                                                        uint32_t group, float* out) {
  constexpr int kCounters = kGroup / 4;
  uint32_t words[4][kCounters];
  for (int i = 0; i < kCounters; ++i) {
    const trilemma::PhiloxCounter x =
        trilemma::philox({group * kCounters + static_cast<uint32_t>(i), start.c1, start.c2, start.c3}, key);
    words[0][i] = x.c0;
    words[1][i] = x.c1;
    words[2][i] = x.c2;
    words[3][i] = x.c3;
  }
  float lanes[4][kCounters];
  for (int i = 0; i < kCounters; ++i) {
    trilemma::box_muller(words[0][i], words[1][i], &lanes[0][i], &lanes[1][i]);
    trilemma::box_muller(words[2][i], words[3][i], &lanes[2][i], &lanes[3][i]);
  }
  for (int i = 0; i < kCounters; ++i)
    for (int lane = 0; lane < 4; ++lane) out[4 * i + lane] = lanes[lane][i];
}

// The normals of elements [offset, offset + count) of a sample, offset a multiple of 64; writes whole groups.
inline void normals(trilemma::PhiloxCounter start, trilemma::PhiloxKey key, int64_t offset, int count, float* out) {
  for (int done = 0; done < count; done += kGroup)
    normal_group(start, key, static_cast<uint32_t>((offset + done) / kGroup), out + done);
}

}  // namespace
