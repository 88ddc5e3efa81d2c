// Products of panels in registers, and the vectors that go in and come out. Internal linkage: compiled once an
// instruction set.

#pragma once

#include <cstdint>
#include <type_traits>

#include "storage.h"
#include "vector.h"

namespace {

TRILEMMA_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

constexpr int kRows = kWidth == 16 ? 8 : 4;  // rows of a product's tile, two vectors each: as many as registers hold

// acc += a b with float32 numbers, one a step of the contraction.
struct Single {
  static constexpr int kPack = 1;
  static constexpr int kDegree = 5;
  TRILEMMA_INLINE Vector multiply_add(Vector acc, float a, Vector b) { return acc + a * b; }
};

// tile[i][n] += sum_j a(i, j) b[j][n], where b is [depth][width] and a(i, j) lies at i + stride j (Across) or at
// stride i + j.
template <class Op, int Rows, int Vectors, bool Across>
TRILEMMA_INLINE void multiply(const float* a, int64_t stride, const float* b, int64_t depth,
                              Vector (&tile)[Rows][Vectors], int64_t width) {
  const float* row[Rows];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) row[i] = Across ? a + i : a + i * stride;
  for (int64_t j = 0; j < depth; ++j) {
    Vector lane[Vectors];
#pragma GCC unroll 2
    for (int n = 0; n < Vectors; ++n) lane[n] = load(b + j * width + n * kWidth);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const float x = Across ? a[j * stride + i] : row[i][j];
#pragma GCC unroll 2
      for (int n = 0; n < Vectors; ++n) tile[i][n] = Op::multiply_add(tile[i][n], x, lane[n]);
    }
  }
}

typedef uint32_t Words __attribute__((vector_size(4 * kWidth)));
typedef uint16_t Halves __attribute__((vector_size(2 * kWidth)));

// A vector of elements, and back. Spelt out for bfloat16: loops over its scalar forms are not vectorised.
template <class T>
TRILEMMA_INLINE Vector load_all(const T* from) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    Halves x;
    std::memcpy(&x, from, sizeof x);
    return (Vector)(__builtin_convertvector(x, Words) << 16);
  } else {
    float x[kWidth];
    for (int i = 0; i < kWidth; ++i) x[i] = T::load(from[i]);
    return load(x);
  }
}

template <class T>
TRILEMMA_INLINE void store_all(T* to, Vector y) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    const Words bits = (Words)y;
    const Words rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    const Halves x = __builtin_convertvector(y == y ? rounded : Words{} + 0x7FC0, Halves);
    std::memcpy(to, &x, sizeof x);
  } else {
    float x[kWidth];
    store(x, y);
    for (int i = 0; i < kWidth; ++i) to[i] = T::round(x[i]);
  }
}

// `count` elements as a vector, the rest zero.
template <class T>
TRILEMMA_INLINE Vector load_some(const T* from, int64_t count) {
  if (count >= kWidth) return load_all(from);
  T x[kWidth] = {};
  if (kWidth > 8 && count == 8)
    std::memcpy(x, from, 8 * sizeof(T));
  else
    for (int i = 0; i < count; ++i) x[i] = from[i];
  return load_all(x);
}

template <class T>
TRILEMMA_INLINE void store_some(T* to, Vector y, int64_t count) {
  if (count >= kWidth) return store_all(to, y);
  T x[kWidth];
  store_all(x, y);
  if (kWidth > 8 && count == 8)
    std::memcpy(to, x, 8 * sizeof(T));
  else
    for (int i = 0; i < count; ++i) to[i] = x[i];
}

// Calls f with the number of rows, a constant, of one tile after another: `count` rows in all.
template <int Least, class F>
TRILEMMA_INLINE void tiles(int64_t count, F&& f) {
  int64_t at = 0;
  for (; at + kRows <= count; at += kRows) f(std::integral_constant<int, kRows>{}, at);
  if constexpr (kRows > 4)
    if (at + 4 <= count) f(std::integral_constant<int, 4>{}, at), at += 4;
  if (at + 2 <= count) f(std::integral_constant<int, 2>{}, at), at += 2;
  if (at < count) f(std::integral_constant<int, Least>{}, at);
}

}  // namespace
