// Arithmetic that the CPU's compilers and nvcc both compile. Under -ffp-contract=off and -fmad=false every operation in
// it rounds once, as IEEE 754 says, so that both give the same bits.

#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define TRILEMMA_HD __host__ __device__ __forceinline__
#else
#define TRILEMMA_HD __attribute__((always_inline)) inline
#endif

namespace trilemma {

TRILEMMA_HD static float as_float(uint32_t bits) { return __builtin_bit_cast(float, bits); }

TRILEMMA_HD static uint32_t as_bits(float value) { return __builtin_bit_cast(uint32_t, value); }

TRILEMMA_HD static float square_root(float value) {
#ifdef __CUDA_ARCH__
  return __fsqrt_rn(value);
#else
  return __builtin_sqrtf(value);
#endif
}

}  // namespace trilemma
