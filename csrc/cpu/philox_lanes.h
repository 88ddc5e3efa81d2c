// Philox for sixteen counters at once. The words are those of `philox`: integers.
//
// A counter's word lies in the lower half of a 64-bit lane, where the widening product takes it from and leaves its own
// lower half; what lies above is never looked at. So a round is two products, two shifts and two exclusive ors, without
// the packing and unpacking on which a compiler's own vectors of 32x32 -> 64 bit products spend most of their time.

#pragma once

#include <cstdint>

#include "trilemma/philox.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

constexpr int kCounters = 16;

#if defined(__AVX512F__)

struct Wide {
  static constexpr int kLanes = 8;
  __m512i v;

  static Wide of(uint32_t x) { return {_mm512_set1_epi64(x)}; }
  static Wide counting(uint32_t from) {
    return {_mm512_add_epi64(_mm512_set1_epi64(from), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7))};
  }
  static Wide product(Wide x, Wide y) { return {_mm512_mul_epu32(x.v, y.v)}; }
  static Wide upper(Wide x) { return {_mm512_srli_epi64(x.v, 32)}; }
  static Wide xor3(Wide x, Wide y, Wide z) { return {_mm512_ternarylogic_epi64(x.v, y.v, z.v, 0x96)}; }
  void store(uint32_t* to) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi64_epi32(v));
  }
};

#elif defined(__AVX2__)

struct Wide {
  static constexpr int kLanes = 4;
  __m256i v;

  static Wide of(uint32_t x) { return {_mm256_set1_epi64x(x)}; }
  static Wide counting(uint32_t from) {
    return {_mm256_add_epi64(_mm256_set1_epi64x(from), _mm256_setr_epi64x(0, 1, 2, 3))};
  }
  static Wide product(Wide x, Wide y) { return {_mm256_mul_epu32(x.v, y.v)}; }
  static Wide upper(Wide x) { return {_mm256_srli_epi64(x.v, 32)}; }
  static Wide xor3(Wide x, Wide y, Wide z) { return {_mm256_xor_si256(_mm256_xor_si256(x.v, y.v), z.v)}; }
  void store(uint32_t* to) const {
    const __m256i packed = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
  }
};

#endif

// The words at counters (first + i, c1, c2, c3), i = 0 .. 15, by word.
__attribute__((always_inline)) inline void philox_lanes(uint32_t first, trilemma::PhiloxCounter start, trilemma::PhiloxKey key,
                         uint32_t words[4][kCounters]) {
#if defined(__AVX2__)
  constexpr int kParts = kCounters / Wide::kLanes;
  const Wide by0 = Wide::of(0xD2511F53), by2 = Wide::of(0xCD9E8D57);
  Wide c0[kParts], c1[kParts], c2[kParts], c3[kParts];
  for (int part = 0; part < kParts; ++part) {
    c0[part] = Wide::counting(first + static_cast<uint32_t>(part * Wide::kLanes));
    c1[part] = Wide::of(start.c1), c2[part] = Wide::of(start.c2), c3[part] = Wide::of(start.c3);
  }
  for (int round = 0; round < 10; ++round) {
    const Wide k0 = Wide::of(key.k0), k1 = Wide::of(key.k1);
    for (int part = 0; part < kParts; ++part) {
      const Wide product0 = Wide::product(c0[part], by0), product2 = Wide::product(c2[part], by2);
      c0[part] = Wide::xor3(Wide::upper(product2), c1[part], k0);
      c2[part] = Wide::xor3(Wide::upper(product0), c3[part], k1);
      c1[part] = product2, c3[part] = product0;
    }
    key.k0 += 0x9E3779B9;
    key.k1 += 0xBB67AE85;
  }
  for (int part = 0; part < kParts; ++part) {
    const int at = part * Wide::kLanes;
    c0[part].store(words[0] + at), c1[part].store(words[1] + at);
    c2[part].store(words[2] + at), c3[part].store(words[3] + at);
  }
#else
  for (int i = 0; i < kCounters; ++i) {
    const auto x = trilemma::philox({first + static_cast<uint32_t>(i), start.c1, start.c2, start.c3}, key);
    words[0][i] = x.c0, words[1][i] = x.c1, words[2][i] = x.c2, words[3][i] = x.c3;
  }
#endif
}

}  // namespace
