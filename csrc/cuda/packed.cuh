// Several neighbouring elements as one word of memory, so that a thread reads and writes 16 bytes at a time.

#pragma once

#include <cuda_runtime.h>

#include <cstring>

#include "storage.cuh"

namespace {

// How many elements of a type fill 16 bytes.
template <class T>
constexpr int kWide = 16 / sizeof(T);

// The memory of `bytes` bytes, aligned as wide.
template <int kBytes>
struct Word;
template <>
struct Word<2> {
  using type = uint16_t;
};
template <>
struct Word<4> {
  using type = uint32_t;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};

// V elements as read; they become numbers only where they are used, which keeps half types small in registers.
template <class T, int V>
struct Packed {
  typename Word<sizeof(T) * V>::type word;

  __device__ __forceinline__ void read(const void* tensor, int64_t element) {
    word = *reinterpret_cast<const decltype(word)*>(static_cast<const T*>(tensor) + element);
  }

  __device__ __forceinline__ void unpack(float (&values)[V]) const {
    T parts[V];
    memcpy(parts, &word, sizeof word);
#pragma unroll
    for (int i = 0; i < V; ++i) values[i] = T::load(parts[i]);
  }

  __device__ __forceinline__ void write(void* tensor, int64_t element) const {
    *reinterpret_cast<decltype(word)*>(static_cast<T*>(tensor) + element) = word;
  }

  // Rounds the values into the word; returns whether all of them are finite after that.
  __device__ __forceinline__ bool pack(const float (&values)[V]) {
    T parts[V];
    bool finite = true;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      parts[i] = T::round(values[i]);
      finite = finite && is_finite(parts[i]);
    }
    memcpy(&word, parts, sizeof word);
    return finite;
  }
};

// Whether every tensor begins where 16 bytes can be read at once. Null pointers do.
template <class... Pointers>
inline bool aligned(Pointers... tensors) {
  return ((reinterpret_cast<uintptr_t>(tensors) % 16 == 0) && ...);
}

}  // namespace
