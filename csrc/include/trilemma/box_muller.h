// Standard normals from Philox words by Box-Muller, in float32, within 4 ulp of the float64 definition.
//
// Our own logarithm, sine and cosine, written once for numbers and for vectors of any width, so that an element's bits
// depend neither on the instruction set or device nor on whether it falls in a vector or in a tail. A library's vector
// and scalar versions do not agree so. `N` names the types and the operations that they have no operators for.

#pragma once

#include "trilemma/host_device.h"
#include "trilemma/philox.h"

namespace trilemma {

struct Number {
  using Float = float;
  using Word = uint32_t;
  using Signed = int32_t;
  TRILEMMA_HD static float rounded(int32_t x) { return static_cast<float>(x); }
  TRILEMMA_HD static float as_float(uint32_t x) { return trilemma::as_float(x); }
  TRILEMMA_HD static uint32_t as_bits(float x) { return trilemma::as_bits(x); }
  TRILEMMA_HD static float square_root(float x) { return trilemma::square_root(x); }
};

// -2 ln((floor(word / 2^8) + 1/2) 2^-24).
template <class N>
TRILEMMA_HD static typename N::Float minus_two_log(typename N::Word word) {
  using Signed = typename N::Signed;
  using Float = typename N::Float;
  constexpr int32_t kSqrtHalf = 23726567;  // ceil(sqrt(1/2) 2^25)
  constexpr uint32_t kBase = 0x3F3504F3;   // the bits of sqrt(1/2)
  // The odd m < 2^25 of u = m 2^-25. Float32 cannot always hold it, but from sqrt(1/2) on, where ln u nears 0 and needs
  // it, its distance from 2^25; below, the rounding is a part of 2^-24 of u, and ln u is at least a third.
  const Signed m = (Signed)(word >> 7 | 1);
  const auto near_one = m >= kSqrtHalf;
  const Float x = N::rounded(near_one ? m - (1 << 25) : m);
  // m = 2^e (1 + r) with 1 + r in [sqrt(1/2), sqrt(2)).
  const Signed shifted = (Signed)(N::as_bits(x) - (kBase + (25u << 23)));
  const Float below_r = N::as_float((typename N::Word)(shifted & 0x7FFFFF) + kBase) - 1.0f;
  const Float r = near_one ? x * 0x1p-25f : below_r;
  const Float e = N::rounded(near_one ? Signed{} : shifted >> 23);

  // -2 ln(1 + r) = -2 r + r^2 - 2 r^3 P(r), P minimax to 6e-9 of the whole; e ln 2 in two parts, the first exact.
  Float p = r * 0.1527388096f - 0.255249708f;
  p = p * r + 0.263191014f;
  p = p * r - 0.284030796f;
  p = p * r + 0.332468212f;
  p = p * r - 0.400024862f;
  p = p * r + 0.500016392f;
  p = p * r - 0.666666626f;
  const Float square = r * r;
  const Float tail = square * r * p + (e * 4.24388880e-4f + square);
  return e * -1.38671875f + (tail - 2.0f * r);
}

// cos and sin of 2 pi (floor(word / 2^8) + 1/2) 2^-24.
template <class N>
TRILEMMA_HD static void turn(typename N::Word word, typename N::Float* cosine, typename N::Float* sine) {
  using Word = typename N::Word;
  using Float = typename N::Float;
  // A word is a turn. The nearest quarter of it, and of the rest y in [-1, 1] eighths: exact, of 23 bits.
  const Word angle = (word & 0xFFFFFF00) | 0x80;
  const Float y = N::rounded((typename N::Signed)(angle << 2)) * 0x1p-31f;
  const Word quarter = angle + 0x20000000;  // its two upper bits
  const Float y2 = y * y;
  // sin(pi/4 y) = y (pi/4 + y^2 P(y^2)) to 4e-9, pi/4 in two parts; cos(pi/4 y) = 1 + y^2 Q(y^2) to 5e-10.
  Float p = y2 * -3.59665828e-05f + 0.00249003386f;
  p = p * y2 - 0.0807454512f;
  const Float s = y * 0.785398185f + y * (y2 * p - 2.18556941e-08f);
  Float q = y2 * 3.49408697e-06f - 0.000325868692f;
  q = q * y2 + 0.0158542842f;
  q = q * y2 - 0.308425128f;
  const Float c = y2 * q + 1.0f;
  const auto odd = (quarter & 0x40000000) != 0;
  *cosine = N::as_float(N::as_bits(odd ? s : c) ^ ((quarter + 0x40000000) & 0x80000000));
  *sine = N::as_float(N::as_bits(odd ? c : s) ^ (quarter & 0x80000000));
}

// sqrt(-2 ln u_a) (cos, sin)(2 pi u_b), u = (floor(word / 2^8) + 1/2) 2^-24.
template <class N>
TRILEMMA_HD static void box_muller(typename N::Word word_a, typename N::Word word_b, typename N::Float* first,
                                   typename N::Float* second) {
  const typename N::Float radius = N::square_root(minus_two_log<N>(word_a));
  typename N::Float cosine, sine;
  turn<N>(word_b, &cosine, &sine);
  *first = radius * cosine;
  *second = radius * sine;
}

// The normals of elements [4 group, 4 group + 4) of a sample.
TRILEMMA_HD static void four_normals(PhiloxCounter start, PhiloxKey key, uint32_t group, float* out) {
  const PhiloxCounter x = philox({group, start.c1, start.c2, start.c3}, key);
  box_muller<Number>(x.c0, x.c1, out, out + 1);
  box_muller<Number>(x.c2, x.c3, out + 2, out + 3);
}

}  // namespace trilemma
