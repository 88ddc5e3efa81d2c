// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011).

#pragma once

#include <cstdint>

#include "trilemma/host_device.h"

namespace trilemma {

// The last byte of the counter: what the noise of a (seed, sample, step) is for.
constexpr uint32_t kStepStream = 1;

struct PhiloxKey {
  uint32_t k0, k1;
};

struct PhiloxCounter {
  uint32_t c0, c1, c2, c3;
};

// The counter that a sample's normals start at; c0 then counts groups of four elements.
TRILEMMA_HD static PhiloxCounter sample_counter(int64_t sample, uint32_t step, uint32_t stream) {
  const auto index = static_cast<uint64_t>(sample);
  return {0, step, static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32) << 8 | stream};
}

TRILEMMA_HD static PhiloxKey seed_key(uint64_t seed) {
  return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
}

TRILEMMA_HD static PhiloxCounter philox(PhiloxCounter c, PhiloxKey k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = uint64_t{0xD2511F53} * c.c0;
    const uint64_t second = uint64_t{0xCD9E8D57} * c.c2;
    c = {static_cast<uint32_t>(second >> 32) ^ c.c1 ^ k.k0, static_cast<uint32_t>(second),
         static_cast<uint32_t>(first >> 32) ^ c.c3 ^ k.k1, static_cast<uint32_t>(first)};
    k.k0 += 0x9E3779B9;
    k.k1 += 0xBB67AE85;
  }
  return c;
}

}  // namespace trilemma
