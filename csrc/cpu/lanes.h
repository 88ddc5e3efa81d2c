// One register of floats and the functions of it that compilers do not vectorise by themselves. Internal linkage.

#pragma once

#include <cstdint>
#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>  // the masked forms below: the others warn of undefined registers
#endif

#include "storage.h"

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

using Lanes = float __attribute__((vector_size(4 * kLanes)));
using Words = uint32_t __attribute__((vector_size(4 * kLanes)));
using Halves = uint16_t __attribute__((vector_size(2 * kLanes)));
using Doubles = double __attribute__((vector_size(8 * kLanes)));

#define TRILEMMA_INLINE __attribute__((always_inline)) inline

TRILEMMA_INLINE Lanes all(float x) { return Lanes{} + x; }

TRILEMMA_INLINE Lanes load(const float* p) {
  Lanes x;
  __builtin_memcpy(&x, p, sizeof(x));
  return x;
}

TRILEMMA_INLINE void store(float* p, Lanes x) { __builtin_memcpy(p, &x, sizeof(x)); }

TRILEMMA_INLINE Lanes load(const Float32* p) { return load(reinterpret_cast<const float*>(p)); }
TRILEMMA_INLINE void store(Float32* p, Lanes x) { __builtin_memcpy(p, &x, sizeof(x)); }

TRILEMMA_INLINE Lanes load(const BFloat16* p) {
  Halves halves;
  __builtin_memcpy(&halves, p, sizeof(halves));
  return reinterpret_cast<Lanes>(__builtin_convertvector(halves, Words) << 16);
}

// To nearest, ties to even; NaN to the quiet one.
TRILEMMA_INLINE void store(BFloat16* p, Lanes x) {
  const Words bits = reinterpret_cast<Words>(x);
  const Words rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  const Words chosen = x != x ? Words{} + 0x7FC0 : rounded;
  const Halves halves = __builtin_convertvector(chosen, Halves);
  __builtin_memcpy(p, &halves, sizeof(halves));
}

TRILEMMA_INLINE Lanes load(const Float16* p) {
#if defined(__AVX512F__)
  return reinterpret_cast<Lanes>(_mm512_maskz_cvtph_ps(0xFFFF, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__)
  return reinterpret_cast<Lanes>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
  Lanes x;
  for (int i = 0; i < kLanes; ++i) x[i] = Float16::load(p[i]);
  return x;
#endif
}

TRILEMMA_INLINE void store(Float16* p, Lanes x) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtps_ph(0xFFFF, reinterpret_cast<__m512>(x), 0));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(reinterpret_cast<__m256>(x), 0));
#else
  for (int i = 0; i < kLanes; ++i) p[i] = Float16::round(x[i]);
#endif
}

// The first `count` lanes, the others 0.
template <class T>
TRILEMMA_INLINE Lanes load(const T* p, int64_t count) {
  T padded[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = p[i];
  return load(padded);
}

template <class T>
TRILEMMA_INLINE void store(T* p, Lanes x, int64_t count) {
  T padded[kLanes];
  store(padded, x);
  for (int64_t i = 0; i < count; ++i) p[i] = padded[i];
}

// x with the lanes from `count` on set to 0.
TRILEMMA_INLINE Lanes first(Lanes x, int64_t count) {
  float padded[kLanes];
  store(padded, x);
  for (int64_t i = count; i < kLanes; ++i) padded[i] = 0.0f;
  return load(padded);
}

TRILEMMA_INLINE double sum(Lanes x) {
#if defined(__AVX512F__)
  const auto eight = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) +
                     __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
  const auto four = __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
  return (static_cast<double>(four[0]) + four[2]) + (static_cast<double>(four[1]) + four[3]);
#else
  float lanes[kLanes];
  store(lanes, x);
  for (int width = kLanes / 2; width > 2; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return (static_cast<double>(lanes[0]) + lanes[2]) + (static_cast<double>(lanes[1]) + lanes[3]);
#endif
}

// The lesser of x and a bound; NaN stays.
TRILEMMA_INLINE Lanes at_most(Lanes x, float bound) {
#if defined(__AVX512F__)
  return reinterpret_cast<Lanes>(_mm512_maskz_min_ps(0xFFFF, _mm512_set1_ps(bound), reinterpret_cast<__m512>(x)));
#else
  return x > bound ? all(bound) : x;
#endif
}

TRILEMMA_INLINE Lanes at_least(Lanes x, float bound) {
#if defined(__AVX512F__)
  return reinterpret_cast<Lanes>(_mm512_maskz_max_ps(0xFFFF, _mm512_set1_ps(bound), reinterpret_cast<__m512>(x)));
#else
  return x < bound ? all(bound) : x;
#endif
}

// 1/x to about one unit of the last place, for x from 1 to 2^126.
TRILEMMA_INLINE Lanes reciprocal(Lanes x) {
#if defined(__AVX512F__)
  const Lanes near = reinterpret_cast<Lanes>(_mm512_maskz_rcp14_ps(0xFFFF, reinterpret_cast<__m512>(x)));
  return near + near * (1.0f - x * near);
#else
  return 1.0f / x;
#endif
}

// exp(x) to about one unit of the last place, x being held within [-87, 87]; NaN stays.
TRILEMMA_INLINE Lanes exponential(Lanes x) {
  x = at_least(at_most(x, 87.0f), -87.0f);
  // 2^n from the bits of n + 1.5·2^23; ln 2 in two parts, n times the first being exact.
  const Lanes shifted = x * 0x1.715476p+0f + 0x1.8p+23f;
  const Lanes n = shifted - 0x1.8p+23f;
  const Lanes r = (x - n * 0x1.62ep-1f) - n * 0x1.0bfbe8p-15f;
  Lanes p = r * 0x1.6a2256p-10f + 0x1.123b02p-7f;  // (exp(r) - 1 - r)/r², minimax on |r| <= ln(2)/2
  p = p * r + 0x1.5558f8p-5f;
  p = p * r + 0x1.555490p-3f;
  p = p * r + 0x1.fffffcp-2f;
  p = (p * (r * r) + r) + 1.0f;
  return p * reinterpret_cast<Lanes>((reinterpret_cast<Words>(shifted) + 127) << 23);
}

TRILEMMA_INLINE Lanes silu(Lanes u) { return u * reciprocal(1.0f + exponential(-u)); }

// The derivative of SiLU, σ(1 + u(1 − σ)).
TRILEMMA_INLINE Lanes silu_slope(Lanes u) {
  const Lanes e = exponential(-u);
  const Lanes sigmoid = reciprocal(1.0f + e);
  return sigmoid * (1.0f + u * (e * sigmoid));
}

}  // namespace
