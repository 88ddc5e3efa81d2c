// Element types as they lie in memory; arithmetic is float32. Each names the float32 it holds, rounds one to nearest,
// ties to even, and tells whether it is finite.

#pragma once

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace {

struct Float32 {
  float value;

  __device__ static float load(Float32 x) { return x.value; }
  __device__ static Float32 round(float x) { return {x}; }
  __device__ static bool finite(Float32 x) { return (__float_as_uint(x.value) & 0x7F800000) != 0x7F800000; }
};

struct BFloat16 {
  uint16_t bits;

  __device__ static float load(BFloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
  __device__ static BFloat16 round(float x) { return {__bfloat16_as_ushort(__float2bfloat16_rn(x))}; }
  __device__ static bool finite(BFloat16 x) { return (x.bits & 0x7F80) != 0x7F80; }
};

struct Float16 {
  uint16_t bits;

  __device__ static float load(Float16 x) { return __half2float(__ushort_as_half(x.bits)); }
  __device__ static Float16 round(float x) { return {__half_as_ushort(__float2half_rn(x))}; }
  __device__ static bool finite(Float16 x) { return (x.bits & 0x7C00) != 0x7C00; }
};

template <class T>
__device__ __forceinline__ bool is_finite(T x) {
  return T::finite(x);
}

}  // namespace

#else

#include "../cpu/storage.h"

namespace {

template <class T>
inline bool is_finite(T x) {
  return !overflows<T>(T::load(x));
}

}  // namespace

#endif
