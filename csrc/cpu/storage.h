// Element types as they lie in memory; arithmetic is float32. kOverflow is the magnitude, as the bits of a float, from
// which on a number is stored as infinity or NaN. Internal linkage: compiled once an instruction set.

#pragma once

#include <cstdint>

namespace {

struct Float32 {
  static constexpr uint32_t kOverflow = 0x7F800000;

  uint32_t bits;

  __attribute__((always_inline)) static float load(Float32 x) { return __builtin_bit_cast(float, x.bits); }
  __attribute__((always_inline)) static Float32 round(float x) { return {__builtin_bit_cast(uint32_t, x)}; }
};

struct BFloat16 {
  static constexpr uint32_t kOverflow = 0x7F7F8000;

  uint16_t bits;

  __attribute__((always_inline)) static float load(BFloat16 x) {
    return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16);
  }
  // To nearest, ties to even; NaN to the quiet one.
  __attribute__((always_inline)) static BFloat16 round(float x) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x);
    const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    return {static_cast<uint16_t>(x != x ? 0x7FC0 : rounded)};
  }
};

struct Float16 {
  static constexpr uint32_t kOverflow = 0x477FF000;

  _Float16 value;

  __attribute__((always_inline)) static float load(Float16 x) { return static_cast<float>(x.value); }
  __attribute__((always_inline)) static Float16 round(float x) { return {static_cast<_Float16>(x)}; }
};

template <class T>
__attribute__((always_inline)) inline bool overflows(float x) {
  return (__builtin_bit_cast(uint32_t, x) & 0x7FFFFFFF) >= T::kOverflow;
}

}  // namespace
