// Dynamic thresholding for the CPU. CMake builds this file once an instruction set.
//
// The quantile comes from a radix select on the bits of |x|, which order like the numbers: a histogram of the leading
// eleven bits says which bucket holds the wanted rank, the next two passes look only into that bucket.

#include "trilemma/dynamic_threshold.h"

#include <cmath>

#include "storage.h"

namespace {

using trilemma::DynamicThreshold;

constexpr uint32_t kInfinity = 0x7F800000;

template <class T>
__attribute__((always_inline)) inline uint32_t magnitude(T x) {
  return __builtin_bit_cast(uint32_t, T::load(x)) & 0x7FFFFFFF;
}

// The rank-th smallest magnitude and the one after it, as bits.
template <class T>
inline void select(const T* x, int64_t count, int64_t rank, uint32_t* found, uint32_t* following) {
  constexpr int kShifts[] = {20, 10, 0};
  constexpr uint32_t kWidths[] = {2048, 1024, 1024};
  uint32_t prefix = 0, mask = 0;
  int64_t held = 0;  // how many of the magnitudes with the prefix are equal to the result
  for (int pass = 0; pass < 3; ++pass) {
    const int shift = kShifts[pass];
    const uint32_t width = kWidths[pass];
    int64_t histogram[2048] = {};
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = magnitude(x[i]);
      histogram[bits >> shift & (width - 1)] += (bits & mask) == prefix;
    }
    uint32_t bucket = 0;
    while (rank >= histogram[bucket]) rank -= histogram[bucket++];
    held = histogram[bucket];
    prefix |= bucket << shift;
    mask |= (width - 1) << shift;
  }
  *found = prefix;
  *following = prefix;
  if (rank + 1 < held) return;
  uint32_t next = 0xFFFFFFFF;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = magnitude(x[i]);
    if (bits > prefix && bits < next) next = bits;
  }
  if (next != 0xFFFFFFFF) *following = next;
}

// The quantile by linear interpolation between the two nearest ranks; NaN where any magnitude is.
template <class T>
inline double quantile(const T* x, int64_t count, double q) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = magnitude(x[i]);
    largest = bits > largest ? bits : largest;
  }
  if (largest > kInfinity) return NAN;
  const double place = q * static_cast<double>(count - 1);
  const int64_t rank = static_cast<int64_t>(place);
  const double rest = place - static_cast<double>(rank);
  uint32_t low = 0, high = 0;
  select(x, count, rank, &low, &high);
  const double first = __builtin_bit_cast(float, low), second = __builtin_bit_cast(float, high);
  return rest == 0 || first == second ? first : first + rest * (second - first);
}

template <class T>
inline void run_samples(const DynamicThreshold& call, int64_t begin, int64_t end) {
  for (int64_t sample = begin; sample < end; ++sample) {
    const T* x = static_cast<const T*>(call.x) + sample * call.elements;
    T* out = static_cast<T*>(call.out) + sample * call.elements;
    const double found = quantile(x, call.elements, call.quantile);
    const double bound = found < call.floor ? call.floor : found;  // NaN stays
    const float high = static_cast<float>(bound), low = -high, scale = static_cast<float>(call.floor / bound);
    for (int64_t i = 0; i < call.elements; ++i) {
      float value = T::load(x[i]);
      value = value < low ? low : value;
      value = value > high ? high : value;
      out[i] = T::round(value * scale);
    }
  }
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void dynamic_threshold_float32(const DynamicThreshold& call, int64_t begin, int64_t end) {
  run_samples<Float32>(call, begin, end);
}

void dynamic_threshold_bfloat16(const DynamicThreshold& call, int64_t begin, int64_t end) {
  run_samples<BFloat16>(call, begin, end);
}

void dynamic_threshold_float16(const DynamicThreshold& call, int64_t begin, int64_t end) {
  run_samples<Float16>(call, begin, end);
}

}  // namespace trilemma::cpu::TRILEMMA_ISA
