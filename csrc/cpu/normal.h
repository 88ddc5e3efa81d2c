// Keyed standard normals on the CPU, many at a time. Compiled once an instruction set: internal linkage.

#pragma once

#include <cstdint>
#include <utility>

#include "philox_lanes.h"
#include "trilemma/box_muller.h"

namespace {

// Normals are made 128 at a time, from 32 counters: enough independent chains to hide the latency of one.
constexpr int kGroup = 128;

struct Register {
  using Float = Lanes;
  using Word = Words;
  using Signed = int32_t __attribute__((vector_size(4 * kLanes)));
  TRILEMMA_INLINE static Float rounded(Signed x) { return __builtin_convertvector(x, Float); }
  TRILEMMA_INLINE static Float as_float(Word x) { return (Float)x; }
  TRILEMMA_INLINE static Word as_bits(Float x) { return (Word)x; }
  TRILEMMA_INLINE static Float square_root(Float x) {
#if defined(__AVX512F__)
    return (Float)_mm512_maskz_sqrt_ps(0xFFFF, (__m512)x);
#elif defined(__AVX__)
    return (Float)_mm256_sqrt_ps((__m256)x);
#else
    for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
    return x;
#endif
  }
};

// Of each quarter of 128 bits, the lower or the upper half: of a and b alternately by numbers, then by pairs of them.
template <int kStep, bool kUpper, int... I>
TRILEMMA_INLINE Lanes alternate(Lanes a, Lanes b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(
      a, b, (I / 4 * 4 + (kUpper ? 2 : 0) + I % 4 / (2 * kStep) * kStep + I % kStep + (I & kStep ? kLanes : 0))...);
}

template <int kStep, bool kUpper>
TRILEMMA_INLINE Lanes alternate(Lanes a, Lanes b) {
  return alternate<kStep, kUpper>(a, b, std::make_integer_sequence<int, kLanes>{});
}

// The normals of one sample.
class Normals {
 public:
  Normals(trilemma::PhiloxCounter start, trilemma::PhiloxKey key) : philox_(start, key) {}

  // Those of elements [offset, offset + count), offset a multiple of kGroup; writes whole groups.
  void fill(int64_t offset, int64_t count, float* out) const {
    for (int64_t done = 0; done < count; done += kGroup) group(static_cast<uint32_t>((offset + done) / 4), out + done);
  }

 private:
  TRILEMMA_INLINE void group(uint32_t first, float* out) const {
    constexpr int kRegisters = kGroup / 4 / kCounters;
    Words words[kRegisters][4];
    philox_.words(first, words);
    for (int i = 0; i < kRegisters; ++i, out += 4 * kLanes) {
      Lanes x[4];
      trilemma::box_muller<Register>(words[i][0], words[i][1], &x[0], &x[1]);
      trilemma::box_muller<Register>(words[i][2], words[i][3], &x[2], &x[3]);
      const Lanes low01 = alternate<1, false>(x[0], x[1]), high01 = alternate<1, true>(x[0], x[1]);
      const Lanes low23 = alternate<1, false>(x[2], x[3]), high23 = alternate<1, true>(x[2], x[3]);
      store(out, alternate<2, false>(low01, low23));
      store(out + kLanes, alternate<2, true>(low01, low23));
      store(out + 2 * kLanes, alternate<2, false>(high01, high23));
      store(out + 3 * kLanes, alternate<2, true>(high01, high23));
    }
  }

  PhiloxLanes philox_;
};

}  // namespace
