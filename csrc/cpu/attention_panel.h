// Tensors of attention as the kernels read them: packed, in float32 or in pairs of bfloat16, and the product of two
// panels. Lanes are queries: a panel of queries is [depth][kLanes], and keys and values are broadcast.

#pragma once

#include <type_traits>

#include "product.h"
#include "trilemma/attention.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

using trilemma::Heads;

constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.693147181f;

constexpr int kLanes = 2 * kWidth;  // queries of a block
constexpr int kKeys = 128;          // keys of a block: its probabilities stay in the first cache
#ifdef __AVX512BF16__
// The same with pairs of bfloat16 in the bits of a float, two steps of the contraction at once.
struct Pair {
  static constexpr int kPack = 2;
  static constexpr int kDegree = 3;
  TRILEMMA_INLINE Vector multiply_add(Vector acc, float a, Vector b) {
    return (Vector)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_ps(a), (__m512bh)b);
  }
};
#endif

// Where head `index` of a tensor begins.
template <class T>
TRILEMMA_INLINE T* start(const Heads& x, int64_t heads, int64_t index) {
  return static_cast<T*>(x.data) + index / heads * x.batch + index % heads * x.head;
}

// Two bfloat16 in the bits of a float, the first in the low half.
TRILEMMA_INLINE float pair_bits(uint16_t first, uint16_t second) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(second) << 16 | first);
}

// The squared norm of a packed number or pair.
template <class Op>
TRILEMMA_INLINE Vector squares(Vector x) {
  if constexpr (Op::kPack == 1) {
    return x * x;
  } else {
    const Vector low = (Vector)((Integers)x << 16), high = (Vector)((Integers)x & ~0xFFFF);
    return low * low + high * high;
  }
}

// Rows of `count` contiguous elements, to packed floats of float32 or, two rows (Interleaved) or two neighbours at a
// time, of pairs.
template <class T, class Op, bool Interleaved>
TRILEMMA_INLINE void pack_row(const T* __restrict from, const T* __restrict next, int64_t count,
                              float* __restrict to) {
  if constexpr (Op::kPack == 1) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
      for (int l = 0; l < 8; ++l) to[i + l] = T::load(from[i + l]);
    for (; i < count; ++i) to[i] = T::load(from[i]);
  } else if constexpr (Interleaved) {
    int64_t i = 0;
    if (next) {
      for (; i + 8 <= count; i += 8)
        for (int l = 0; l < 8; ++l) to[i + l] = pair_bits(from[i + l].bits, next[i + l].bits);
      for (; i < count; ++i) to[i] = pair_bits(from[i].bits, next[i].bits);
    } else {
      for (; i < count; ++i) to[i] = pair_bits(from[i].bits, 0);
    }
  } else {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) std::memcpy(to + i / 2, from + i, 4 * sizeof(float));
    for (; i + 2 <= count; i += 2) std::memcpy(to + i / 2, from + i, sizeof(float));
    if (i < count) to[i / 2] = pair_bits(from[i].bits, 0);
  }
}

// One head's keys or values, in blocks of kKeys, ready to be broadcast. Contracted is what a product sums over: the
// depth of keys, the keys of values; with pairs, two of those lie together.
struct Packed {
  const float* data;
  bool depth_contiguous;
  int64_t block;   // floats of a block
  int64_t stride;  // floats from one row to the next
};

// Whether float32 is read where it lies: it is for keys so few that copying them would not pay.
template <class T>
constexpr bool in_place(int64_t keys) {
  return std::is_same_v<T, Float32> && keys <= kKeys;
}

template <class T, class Op>
inline Packed pack_keys(const Heads& k, const T* from, int64_t keys, int64_t depth, float* to) {
  if (in_place<T>(keys))
    return {reinterpret_cast<const float*>(from), k.depth_contiguous(), 0, k.depth_contiguous() ? k.token : k.depth};
  const int64_t packed = depth / Op::kPack;
  Packed panel{to, k.depth_contiguous(), kKeys * packed, k.depth_contiguous() ? packed : kKeys};
  for (int64_t first = 0; first < keys; first += kKeys, to += panel.block) {
    const int64_t count = keys - first < kKeys ? keys - first : kKeys;
    if (panel.depth_contiguous)
      for (int64_t j = 0; j < count; ++j)
        pack_row<T, Op, false>(from + (first + j) * k.token, nullptr, depth, to + j * packed);
    else
      for (int64_t d = 0; d < packed; ++d) {
        const T* row = from + d * Op::kPack * k.depth + first;
        pack_row<T, Op, true>(row, row + k.depth, count, to + d * kKeys);
      }
  }
  return panel;
}

template <class T, class Op>
inline Packed pack_values(const Heads& v, const T* from, int64_t keys, int64_t depth, float* to) {
  if (in_place<T>(keys))
    return {reinterpret_cast<const float*>(from), v.depth_contiguous(), 0, v.depth_contiguous() ? v.token : v.depth};
  constexpr int64_t kPackedKeys = kKeys / Op::kPack;
  Packed panel{to, v.depth_contiguous(), kPackedKeys * depth, v.depth_contiguous() ? depth : kPackedKeys};
  for (int64_t first = 0; first < keys; first += kKeys, to += panel.block) {
    const int64_t count = keys - first < kKeys ? keys - first : kKeys;
    if (panel.depth_contiguous)
      for (int64_t j = 0; j < count; j += Op::kPack) {
        const T* row = from + (first + j) * v.token;
        pack_row<T, Op, true>(row, j + 1 < count ? row + v.token : nullptr, depth, to + j / Op::kPack * depth);
      }
    else
      for (int64_t d = 0; d < depth; ++d)
        pack_row<T, Op, false>(from + d * v.depth + first, nullptr, count, to + d * kPackedKeys);
  }
  return panel;
}

// The same of floats as they lie, in pieces of four.
TRILEMMA_INLINE Vector load_fours(const void* from, int64_t count) {
  float x[kWidth] = {};
  if (count >= kWidth)
    std::memcpy(x, from, sizeof x);
  else
    for (int64_t i = 0; i < count; i += 4) std::memcpy(x + i, static_cast<const float*>(from) + i, 4 * sizeof(float));
  return load(x);
}

// A block of at most kLanes tokens as lanes: [depth][kLanes] packed along the depth, zero in the lanes beyond.
template <class T, class Op>
inline void pack_lanes(const Heads& q, const T* from, int64_t count, int64_t depth, float factor, float* to) {
  const int64_t packed = depth / Op::kPack;
  for (int n = 0; n < kLanes; n += kWidth, to += kWidth) {
    const int64_t left = count - n;
    if (q.depth_contiguous()) {
      for (int64_t d = 0; d < packed; d += kWidth) {
        const int64_t width = packed - d < kWidth ? packed - d : kWidth;
        Vector square[kWidth];
        for (int i = 0; i < kWidth; ++i) {
          square[i] = Vector{};
          if (i >= left) continue;
          const T* token = from + (n + i) * q.token + d * Op::kPack;
          if constexpr (Op::kPack == 1)
            square[i] = load_some(token, width) * factor;
          else
            square[i] = load_fours(token, width);
        }
        transpose(square);
        for (int i = 0; i < width; ++i) store(to + (d + i) * kLanes, square[i]);
      }
    } else {
      for (int64_t d = 0; d < packed; ++d) {
        const T* row = from + d * Op::kPack * q.depth + n;
        if (left <= 0)
          store(to + d * kLanes, Vector{});
        else if constexpr (Op::kPack == 1)
          store(to + d * kLanes, load_some(row, left) * factor);
        else {
          float x[kWidth] = {};
          pack_row<T, Op, true>(row, row + q.depth, left < kWidth ? left : kWidth, x);
          store(to + d * kLanes, load(x));
        }
      }
    }
  }
}

// Writes lanes [depth][kLanes], each multiplied by its factor, as `count` tokens.
template <class T>
inline void unpack_lanes(const Heads& out, T* to, int64_t count, int64_t depth, const Vector* factor,
                         const float* from) {
  for (int n = 0; n < kLanes && n < count; n += kWidth, ++factor) {
    const int64_t left = count - n < kWidth ? count - n : kWidth;
    if (out.depth_contiguous()) {
      for (int64_t d = 0; d < depth; d += kWidth) {
        const int64_t width = depth - d < kWidth ? depth - d : kWidth;
        Vector square[kWidth];
        for (int i = 0; i < kWidth; ++i)
          square[i] = i < width ? load(from + (d + i) * kLanes + n) * *factor : Vector{};
        transpose(square);
        for (int i = 0; i < left; ++i) store_some(to + (n + i) * out.token + d, square[i], width);
      }
    } else {
      for (int64_t d = 0; d < depth; ++d)
        store_some(to + d * out.depth + n, load(from + d * kLanes + n) * *factor, left);
    }
  }
}

// Tokens as rows [tokens][width] of float32, zero from the depth on.
template <class T>
inline void pack_rows(const Heads& x, const T* from, int64_t tokens, int64_t depth, int64_t width, float* to) {
  for (int64_t d = 0; d < width; d += kWidth) {
    const int64_t left = least(depth - d, kWidth);
    if (x.depth_contiguous()) {
      for (int64_t j = 0; j < tokens; ++j) store(to + j * width + d, load_some(from + j * x.token + d, left));
      continue;
    }
    for (int64_t j = 0; j < tokens; j += kWidth) {
      Vector square[kWidth];
      for (int i = 0; i < kWidth; ++i)
        square[i] = i < left ? load_some(from + (d + i) * x.depth + j, least(tokens - j, kWidth)) : Vector{};
      transpose(square);
      for (int i = 0; i < kWidth && j + i < tokens; ++i) store(to + (j + i) * width + d, square[i]);
    }
  }
}

// Writes rows [tokens][width], multiplied by a factor.
template <class T>
inline void unpack_rows(const Heads& x, T* to, int64_t tokens, int64_t depth, int64_t width, float factor,
                        const float* from) {
  for (int64_t d = 0; d < depth; d += kWidth) {
    const int64_t left = least(depth - d, kWidth);
    if (x.depth_contiguous()) {
      for (int64_t j = 0; j < tokens; ++j) store_some(to + j * x.token + d, load(from + j * width + d) * factor, left);
      continue;
    }
    for (int64_t j = 0; j < tokens; j += kWidth) {
      Vector square[kWidth];
      for (int i = 0; i < kWidth; ++i)
        square[i] = j + i < tokens ? load(from + (j + i) * width + d) * factor : Vector{};
      transpose(square);
      for (int i = 0; i < left; ++i) store_some(to + (d + i) * x.depth + j, square[i], least(tokens - j, kWidth));
    }
  }
}

}  // namespace
