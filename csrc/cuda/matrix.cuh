// Products of small matrices by the tensor cores of a warp, and the fragments of them that its threads hold. With
// g = lane / 4 and t = lane % 4, a register of two half numbers a thread:
//
//   A, 16 rows by 16:     rows g and g + 8 in turn, columns 2t, 2t + 1, then those 8 further
//   B, 16 by 8 columns:   rows 2t, 2t + 1, then those 8 further, column g
//   D, 16 rows by 8:      row g, columns 2t, 2t + 1, then row g + 8; float32
//
// Every thread of the warp calls these together.

#pragma once

#include <cuda_runtime.h>

#include <cstring>
#include <type_traits>

#include "storage.cuh"

namespace {

// Two numbers in a register, the first in the low half.
template <class T>
__device__ __forceinline__ uint32_t pair_of(float low, float high) {
  const T parts[2] = {T::round(low), T::round(high)};
  uint32_t both;
  memcpy(&both, parts, sizeof both);
  return both;
}

#ifdef __CUDACC__

// D += A B.
template <class T>
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<T, BFloat16>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four matrices of 8 by 8 half numbers from shared memory, a register each: of row g the columns 2t, 2t + 1; transposed,
// of rows 2t, 2t + 1 the column g. Lane l gives where row l % 8 of matrix l / 8 begins, on 16 bytes.
template <bool kTransposed>
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

#else  // what the emulator runs in their place

template <class T>
inline float half_of(uint32_t both, int which) {
  T parts[2];
  memcpy(parts, &both, sizeof both);
  return T::load(parts[which]);
}

template <class T>
inline void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Fragments {
    uint32_t a[4], b[2];
  };
  emulator::share(Fragments{{a[0], a[1], a[2], a[3]}, {b0, b1}}, [&](const auto& lane) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + i / 2 * 8, column = 2 * t + i % 2;
      for (int k = 0; k < 16; ++k)
        d[i] += half_of<T>(lane(row % 8 * 4 + k % 8 / 2).a[row / 8 + k / 8 * 2], k % 2) *
                half_of<T>(lane(column * 4 + k % 8 / 2).b[k / 8], k % 2);
    }
  });
}

template <bool kTransposed>
inline void load_matrices(uint32_t (&to)[4], const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16) std::abort();
  emulator::share(static_cast<const uint16_t*>(row), [&](const auto& lane) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = kTransposed ? lane(8 * i + 2 * t)[g] : lane(8 * i + g)[2 * t];
      const uint32_t high = kTransposed ? lane(8 * i + 2 * t + 1)[g] : lane(8 * i + g)[2 * t + 1];
      to[i] = low | high << 16;
    }
  });
}

#endif

}  // namespace
