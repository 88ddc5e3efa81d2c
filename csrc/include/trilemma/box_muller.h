// Standard normals from Philox words by Box-Muller, in float32, within 4 ulp of the float64 definition.
//
// Our own logarithm, sine and cosine: plain operations that a compiler turns into vectors of any width, so that an
// element's bits depend neither on the instruction set or device nor on whether it falls in a vector or in a tail. A
// library's vector and scalar versions do not agree so.

#pragma once

#include "trilemma/host_device.h"
#include "trilemma/philox.h"

namespace trilemma {

// ln(m 2^-25) of an odd m < 2^25, which float32 cannot always hold: above 2^24 its distance from 2^24 or 2^25 can be.
TRILEMMA_HD static float log_uniform(uint32_t m) {
  constexpr uint32_t kSqrtHalf = 23726567;  // ceil(sqrt(1/2) 2^25)
  // m < 2^24: m = 2^e (1 + r) with 1 + r in [sqrt(1/2), sqrt(2)), exactly.
  const uint32_t shifted = as_bits(static_cast<float>(static_cast<int32_t>(m))) + (0x3F800000 - 0x3F3504F3);
  const int32_t low_e = static_cast<int32_t>(shifted >> 23) - 127 - 25;
  const float low_r = as_float((shifted & 0x7FFFFF) + 0x3F3504F3) - 1.0f;
  // m > 2^24: the same r from an exact difference.
  const bool near_one = m >= kSqrtHalf;
  const int32_t difference = static_cast<int32_t>(m) - (near_one ? 1 << 25 : 1 << 24);
  const float high_r = static_cast<float>(difference) * (near_one ? 0x1p-25f : 0x1p-24f);

  const bool high = m > (1u << 24);
  const float r = high ? high_r : low_r;
  const float e = static_cast<float>(high ? (near_one ? 0 : -1) : low_e);

  // ln(1 + r) = r - r^2/2 + r^3 P(r), P minimax to 6e-9 of the whole; e ln 2 in two parts, the first exact.
  float p = -0.0763694048f;
  p = p * r + 0.127624854f;
  p = p * r + -0.131595507f;
  p = p * r + 0.142015398f;
  p = p * r + -0.166234106f;
  p = p * r + 0.200012431f;
  p = p * r + -0.250008196f;
  p = p * r + 0.333333313f;
  const float square = r * r;
  const float tail = square * r * p + e * -2.12194440e-4f - 0.5f * square;
  return e * 0.693359375f + (r + tail);
}

// cos and sin of 2 pi m 2^-25, from the nearest quarter turn and the rest y in [-1, 1] of an eighth, both exact.
TRILEMMA_HD static void turn_uniform(uint32_t m, float* cosine, float* sine) {
  const uint32_t quarter = (m + (1u << 22)) >> 23;
  const float y = static_cast<float>(static_cast<int32_t>(m) - static_cast<int32_t>(quarter << 23)) * 0x1p-22f;
  const float y2 = y * y;
  // sin(pi/4 y) = y (pi/4 + y^2 P(y^2)) to 4e-9, pi/4 in two parts; cos(pi/4 y) = 1 + y^2 Q(y^2) to 5e-10.
  float p = -3.59665828e-05f;
  p = p * y2 + 0.00249003386f;
  p = p * y2 + -0.0807454512f;
  const float s = y * 0.785398185f + y * (y2 * p + -2.18556941e-08f);
  float q = 3.49408697e-06f;
  q = q * y2 + -0.000325868692f;
  q = q * y2 + 0.0158542842f;
  q = q * y2 + -0.308425128f;
  const float c = 1.0f + y2 * q;
  const bool odd = quarter & 1;
  const float unsigned_cosine = odd ? s : c;
  const float unsigned_sine = odd ? c : s;
  *cosine = as_float(as_bits(unsigned_cosine) ^ ((quarter + 1) & 2) << 30);
  *sine = as_float(as_bits(unsigned_sine) ^ (quarter & 2) << 30);
}

// sqrt(-2 ln u_a) (cos, sin)(2 pi u_b), u = (floor(word / 2^8) + 1/2) 2^-24.
TRILEMMA_HD static void box_muller(uint32_t word_a, uint32_t word_b, float* first, float* second) {
  const float radius = square_root(-2.0f * log_uniform((word_a >> 8) * 2 + 1));
  float cosine, sine;
  turn_uniform((word_b >> 8) * 2 + 1, &cosine, &sine);
  *first = radius * cosine;
  *second = radius * sine;
}

// The normals of elements [4 group, 4 group + 4) of a sample.
TRILEMMA_HD static void four_normals(PhiloxCounter start, PhiloxKey key, uint32_t group, float* out) {
  const PhiloxCounter x = philox({group, start.c1, start.c2, start.c3}, key);
  box_muller(x.c0, x.c1, out, out + 1);
  box_muller(x.c2, x.c3, out + 2, out + 3);
}

}  // namespace trilemma
