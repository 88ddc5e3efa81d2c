// Philox for a register of counters at once. The words are those of `philox`: integers.
//
// A counter's word lies in the lower half of a 64-bit lane, where the widening product takes it from and leaves its own
// lower half; what lies above is never looked at. So a round is two products, two shifts and two exclusive ors, without
// the packing and unpacking on which a compiler's own vectors of 32x32 -> 64 bit products spend most of their time.

#pragma once

#include <cstdint>

#include "lanes.h"
#include "trilemma/philox.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

// Counters of a register. Where element 4 j + r holds number kLanes / 4 r + j, interleaving the elements of four
// registers within quarters of 128 bits leaves four normals a counter in the counters' order.
constexpr int kCounters = kLanes;

constexpr int counter_at(int element) { return kLanes / 4 * (element % 4) + element / 4; }

#if defined(__SSE2__)

// Two counters an element pair: those of even elements in one of these, those of odd elements in another.
using Wide = uint64_t __attribute__((vector_size(4 * kLanes)));

#if defined(__AVX512F__)
TRILEMMA_INLINE Wide product(Wide x, Wide y) { return (Wide)_mm512_maskz_mul_epu32(0xFF, (__m512i)x, (__m512i)y); }
TRILEMMA_INLINE Wide xor3(Wide x, Wide y, Wide z) {
  return (Wide)_mm512_ternarylogic_epi64((__m512i)x, (__m512i)y, (__m512i)z, 0x96);
}
TRILEMMA_INLINE Words lower(Wide even, Wide odd) {
  return (Words)_mm512_mask_shuffle_epi32((__m512i)even, 0xAAAA, (__m512i)odd, _MM_PERM_CCAA);
}
TRILEMMA_INLINE Words upper(Wide even, Wide odd) {
  return (Words)_mm512_mask_shuffle_epi32((__m512i)odd, 0x5555, (__m512i)even, _MM_PERM_DDBB);
}
#elif defined(__AVX2__)
TRILEMMA_INLINE Wide product(Wide x, Wide y) { return (Wide)_mm256_mul_epu32((__m256i)x, (__m256i)y); }
TRILEMMA_INLINE Wide xor3(Wide x, Wide y, Wide z) { return x ^ y ^ z; }
TRILEMMA_INLINE Words lower(Wide even, Wide odd) {
  return (Words)_mm256_blend_epi32((__m256i)even, (__m256i)(odd << 32), 0xAA);
}
TRILEMMA_INLINE Words upper(Wide even, Wide odd) {
  return (Words)_mm256_blend_epi32((__m256i)(even >> 32), (__m256i)odd, 0xAA);
}
#else
TRILEMMA_INLINE Wide product(Wide x, Wide y) { return (Wide)_mm_mul_epu32((__m128i)x, (__m128i)y); }
TRILEMMA_INLINE Wide xor3(Wide x, Wide y, Wide z) { return x ^ y ^ z; }
TRILEMMA_INLINE Words lower(Wide even, Wide odd) { return (Words)((even & 0xFFFFFFFF) | odd << 32); }
TRILEMMA_INLINE Words upper(Wide even, Wide odd) {
  return (Words)(even >> 32 | (odd & 0xFFFFFFFF00000000));
}
#endif

#endif

// The words of one sample at counters (c0, c1, c2, c3) of any c0. What does not depend on c0 is computed once: half of
// the first two rounds.
class PhiloxLanes {
 public:
  static constexpr int kRounds = 10;

  PhiloxLanes(trilemma::PhiloxCounter start, trilemma::PhiloxKey key) : start_(start), key_(key) {
    for (int round = 0; round < kRounds; ++round) {
      k0_[round] = key.k0, k1_[round] = key.k1;
      key.k0 += 0x9E3779B9, key.k1 += 0xBB67AE85;
    }
    const uint64_t second = kBy2 * start.c2;
    const uint64_t first = kBy0 * static_cast<uint32_t>(second >> 32 ^ start.c1 ^ k0_[0]);
    k1_[0] ^= start.c3;
    k0_[1] ^= static_cast<uint32_t>(second);
    k1_[1] ^= first >> 32;
    third_ = first;
  }

  // The words at counters first + counter_at(element), by word, of kRegisters registers one after the other.
  template <int kRegisters>
  TRILEMMA_INLINE void words(uint32_t first, Words (&out)[kRegisters][4]) const {
#if defined(__SSE2__)
    constexpr int kParts = 2 * kRegisters;
    const Wide by0 = Wide{} + kBy0, by2 = Wide{} + kBy2;
    Wide c0[kParts], c1[kParts], c2[kParts], c3[kParts];
    for (int part = 0; part < kParts; ++part) {
      Wide counter;
      for (int lane = 0; lane < kLanes / 2; ++lane) counter[lane] = counter_at(2 * lane);
      counter += first + static_cast<uint32_t>(part / 2 * kCounters + part % 2 * counter_at(1));
      const Wide product0 = product(counter, by0);
      const Wide product2 = product((product0 >> 32) ^ k1_[0], by2);
      c0[part] = (product2 >> 32) ^ k0_[1];
      c1[part] = product2;
      c2[part] = product0 ^ k1_[1];
      c3[part] = Wide{} + third_;
    }
    for (int round = 2; round < kRounds - 1; ++round) {
      const Wide k0 = Wide{} + k0_[round], k1 = Wide{} + k1_[round];
      for (int part = 0; part < kParts; ++part) {
        const Wide product0 = product(c0[part], by0), product2 = product(c2[part], by2);
        c0[part] = xor3(product2 >> 32, c1[part], k0);
        c2[part] = xor3(product0 >> 32, c3[part], k1);
        c1[part] = product2, c3[part] = product0;
      }
    }
    const Words k0 = Words{} + static_cast<uint32_t>(k0_[kRounds - 1]);
    const Words k1 = Words{} + static_cast<uint32_t>(k1_[kRounds - 1]);
    for (int i = 0; i < kRegisters; ++i) {
      const int even = 2 * i, odd = even + 1;
      const Wide even0 = product(c0[even], by0), even2 = product(c2[even], by2);
      const Wide odd0 = product(c0[odd], by0), odd2 = product(c2[odd], by2);
      out[i][0] = (Words)xor3((Wide)upper(even2, odd2), (Wide)lower(c1[even], c1[odd]), (Wide)k0);
      out[i][1] = lower(even2, odd2);
      out[i][2] = (Words)xor3((Wide)upper(even0, odd0), (Wide)lower(c3[even], c3[odd]), (Wide)k1);
      out[i][3] = lower(even0, odd0);
    }
#else
    for (int i = 0; i < kRegisters; ++i)
      for (int element = 0; element < kLanes; ++element) {
        const uint32_t c0 = first + static_cast<uint32_t>(i * kCounters + counter_at(element));
        const auto x = trilemma::philox({c0, start_.c1, start_.c2, start_.c3}, key_);
        out[i][0][element] = x.c0, out[i][1][element] = x.c1, out[i][2][element] = x.c2, out[i][3][element] = x.c3;
      }
#endif
  }

 private:
  static constexpr uint64_t kBy0 = 0xD2511F53, kBy2 = 0xCD9E8D57;

  [[maybe_unused]] trilemma::PhiloxCounter start_;
  [[maybe_unused]] trilemma::PhiloxKey key_;
  uint64_t k0_[kRounds], k1_[kRounds], third_;
};

}  // namespace
