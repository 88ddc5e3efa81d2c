// Vectors of the instruction set's width, and 2^x on them. Internal linkage: compiled once an instruction set.

#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

typedef float Vector __attribute__((vector_size(4 * kWidth)));
typedef int32_t Integers __attribute__((vector_size(4 * kWidth)));
typedef uint32_t Words __attribute__((vector_size(4 * kWidth)));  // for sums that may wrap around

#define TRILEMMA_INLINE __attribute__((always_inline)) static inline

TRILEMMA_INLINE Vector broadcast(float x) { return Vector{} + x; }

TRILEMMA_INLINE Vector load(const float* p) {
  Vector x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

TRILEMMA_INLINE void store(float* p, Vector x) { std::memcpy(p, &x, sizeof x); }

// Numbers that are not negative, or NaN, as integers of the same order; NaN is the largest.
TRILEMMA_INLINE Integers ordered(Vector x) { return (Integers)x & 0x7FFFFFFF; }

TRILEMMA_INLINE Integers larger(Integers a, Integers b) { return a > b ? a : b; }

TRILEMMA_INLINE float largest(Integers x) {
  int32_t most = x[0];
  for (int i = 1; i < kWidth; ++i) most = x[i] > most ? x[i] : most;
  return __builtin_bit_cast(float, most);
}

constexpr float kWhole = 12582912.0f;  // 1.5 2^23: numbers near it have no fraction

// 2^(x - c) to a relative error of 2^-23 (degree 5) or 2^-13 (degree 3), where `whole` is kWhole - c with c a whole
// number, |x - c| < 126, and x is no NaN: the whole part goes into the exponent through the low bits of a sum, the
// rest through a polynomial that is minimax on [-1/2, 1/2].
template <int Degree>
TRILEMMA_INLINE Vector exp2_near(Vector x, Vector whole) {
  const Vector shifted = x + whole;
  const Vector f = x - (shifted - whole);
  Vector p;
  if constexpr (Degree == 3) {
    p = 0.0551716685f * f + 0.242611125f;
    p = p * f + 0.693260968f;
    p = p * f + 0.999928057f;
  } else {
    p = 0.00132764713f * f + 0.00967554096f;
    p = p * f + 0.0555071309f;
    p = p * f + 0.240221202f;
    p = p * f + 0.693146944f;
    p = p * f + 1.00000012f;
  }
  return (Vector)((Words)p + ((Words)shifted << 23));
}

// 2^x to the same error, for x <= 0 however far, and for NaN.
template <int Degree>
TRILEMMA_INLINE Vector exp2_below(Vector x) {
  const Vector low = broadcast(-125.0f);
  const Vector p = exp2_near<Degree>(x < low ? low : x, broadcast(kWhole));
  const Vector kept = x < low ? Vector{} : p;
  return x == x ? kept : x;
}

template <int Step, int... I>
TRILEMMA_INLINE void swap_halves(Vector& a, Vector& b, std::integer_sequence<int, I...>) {
  const Vector low = __builtin_shufflevector(a, b, (I & Step ? kWidth + I - Step : I)...);
  b = __builtin_shufflevector(a, b, (I & Step ? kWidth + I : I + Step)...);
  a = low;
}

// Transposes a square of vectors in place: log2(width) rounds of swapping halves of pairs of rows.
template <int Step = kWidth / 2>
TRILEMMA_INLINE void transpose(Vector (&rows)[kWidth]) {
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; ++i)
    if (!(i & Step)) swap_halves<Step>(rows[i], rows[i + Step], std::make_integer_sequence<int, kWidth>{});
  if constexpr (Step > 1) transpose<Step / 2>(rows);
}

}  // namespace
