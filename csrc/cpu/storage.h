// Element types as they lie in memory; arithmetic is float32. Internal linkage: compiled once an instruction set.

#pragma once

#include <cstdint>

namespace {

struct Float32 {
  uint32_t bits;

  __attribute__((always_inline)) static float load(Float32 x) { return __builtin_bit_cast(float, x.bits); }
  __attribute__((always_inline)) static Float32 round(float x) { return {__builtin_bit_cast(uint32_t, x)}; }
  __attribute__((always_inline)) static bool finite(Float32 x) { return (x.bits & 0x7F800000) != 0x7F800000; }
};

struct BFloat16 {
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
  __attribute__((always_inline)) static bool finite(BFloat16 x) { return (x.bits & 0x7F80) != 0x7F80; }
};

struct Float16 {
  _Float16 value;

  __attribute__((always_inline)) static float load(Float16 x) { return static_cast<float>(x.value); }
  __attribute__((always_inline)) static Float16 round(float x) { return {static_cast<_Float16>(x)}; }
  __attribute__((always_inline)) static bool finite(Float16 x) {
    return (__builtin_bit_cast(uint16_t, x.value) & 0x7C00) != 0x7C00;
  }
};

}  // namespace
