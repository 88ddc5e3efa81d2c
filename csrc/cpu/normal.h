// Keyed standard normals on the CPU, many at a time. Compiled once an instruction set: internal linkage.

#pragma once

#include <cstdint>

#include "philox_lanes.h"
#include "trilemma/box_muller.h"

namespace {

// Normals are made 64 at a time, from 16 counters.
constexpr int kGroup = 4 * kCounters;

// The normals of elements [64 group, 64 group + 64) of a sample.
__attribute__((always_inline)) inline void normal_group(trilemma::PhiloxCounter start, trilemma::PhiloxKey key,
                                                        uint32_t group, float* out) {
  uint32_t words[4][kCounters];
  philox_lanes(group * kCounters, start, key, words);
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
