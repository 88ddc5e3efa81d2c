// Attention for the CPU. CMake builds this file once an instruction set, in a namespace of its own.
//
// Lanes are queries: a block of two vectors of queries meets the keys, which are broadcast, in blocks whose
// probabilities stay in the first cache. No score needs to be seen twice where Cauchy and Schwarz bound them all, which
// in a network they nearly always do: then softmax needs no shift, and exp follows the product in registers.

#include <cmath>
#include <type_traits>

#include "attention_panel.h"
#include "scratch.h"

namespace {

using trilemma::Attention;
using trilemma::Heads;

// Scores within this bound, in powers of two, are shifted by the bound, a whole number, in the exponent of their
// powers: none is above 1, and the least, 2^-64, still leaves products with values room above the smallest number.
constexpr float kLargestScore = 32.0f;

// What one head's blocks of queries share.
struct Head {
  Packed keys, values;
  float key_square;  // the largest squared norm of a key
};

template <class Op>
inline float largest_square(const Packed& keys, int64_t count, int64_t packed) {
  Integers most{};
  for (int64_t first = 0; first < count; first += kKeys) {
    const int64_t here = least(count - first, kKeys);
    const float* block = keys.data + first / kKeys * keys.block;
    for (int64_t j = 0; j < here; j += kWidth) {
      Vector sum{};
      if (keys.depth_contiguous) {
        Vector square[kWidth];
        for (int i = 0; i < kWidth; ++i) {
          square[i] = Vector{};
          if (j + i >= here) continue;
          const float* key = block + (j + i) * keys.stride;
          for (int64_t d = 0; d < packed; d += kWidth) square[i] = square[i] + squares<Op>(load_fours(key + d, packed - d));
        }
        transpose(square);
        for (int i = 0; i < kWidth; ++i) sum = sum + square[i];
      } else {
        for (int64_t d = 0; d < packed; ++d)
          sum = sum + squares<Op>(load_some(reinterpret_cast<const Float32*>(block) + d * keys.stride + j, here - j));
      }
      most = larger(most, ordered(sum));
    }
  }
  return largest(most);
}

// What one block of queries is computed in.
struct Block {
  float* queries;        // [depth][kLanes]
  float* probabilities;  // [kKeys][kLanes]
  float* result;         // [depth][kLanes]
  Vector shift[2];       // of the scores, in powers of two: their bound, or (Exact) the largest of each query
  Vector sum[2];
};

// The scores of Rows keys from `key` of a block, in powers of two.
template <class Op, int Rows, int Vectors, bool Across>
TRILEMMA_INLINE void scores(const Packed& keys, const float* block, int64_t key, int64_t packed,
                            const float* queries, Vector (&tile)[Rows][Vectors]) {
  multiply<Op, Rows, Vectors, Across>(Across ? block + key : block + key * keys.stride, keys.stride, queries, packed,
                                      tile, kLanes);
}

template <class Op, int Rows, int Vectors, bool Across, bool Exact>
TRILEMMA_INLINE void probabilities(const Packed& keys, const float* block, int64_t key, int64_t count,
                                   int64_t packed, float factor, Block& work) {
  Vector tile[Rows][Vectors];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int n = 0; n < Vectors; ++n) tile[i][n] = Exact && Op::kPack == 1 ? -work.shift[n] : Vector{};
  scores<Op, Rows, Vectors, Across>(keys, block, key, packed, work.queries, tile);
#pragma GCC unroll 2
  for (int n = 0; n < Vectors; ++n) {
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      Vector x = tile[i][n];
      if constexpr (Op::kPack == 2) x = Exact ? x * factor - work.shift[n] : x * factor;
      x = Exact ? exp2_below<Op::kDegree>(x) : exp2_near<Op::kDegree>(x, kWhole - work.shift[n]);
      if (Op::kPack == 2 && i == Rows - 1 && key + i >= count) x = Vector{};
      work.sum[n] = work.sum[n] + x;
      tile[i][n] = x;
    }
    if constexpr (Op::kPack == 1) {
#pragma GCC unroll 8
      for (int i = 0; i < Rows; ++i) store(work.probabilities + (key + i) * kLanes + n * kWidth, tile[i][n]);
    } else {
      // To bfloat16, ties away from zero; a probability is no NaN that this could turn into infinity.
#pragma GCC unroll 8
      for (int i = 0; i < Rows; i += 2) {
        const Words low = (Words)tile[i][n] + 0x8000u, high = (Words)tile[i + 1][n] + 0x8000u;
        const Integers pair = (Integers)(low >> 16 | (high & ~0xFFFFu));
        store(work.probabilities + (key + i) / 2 * kLanes + n * kWidth, (Vector)pair);
      }
    }
  }
}

template <class Op, int Rows, int Vectors, bool Across>
TRILEMMA_INLINE void raise_shift(const Packed& keys, const float* block, int64_t key, int64_t packed,
                                 float factor, Block& work) {
  Vector tile[Rows][Vectors] = {};
  scores<Op, Rows, Vectors, Across>(keys, block, key, packed, work.queries, tile);
  for (int i = 0; i < Rows; ++i)
    for (int n = 0; n < Vectors; ++n) {
      const Vector x = Op::kPack == 2 ? tile[i][n] * factor : tile[i][n];
      work.shift[n] = x > work.shift[n] ? x : work.shift[n];
    }
}

template <class Op, int Vectors, bool AcrossKeys, bool AcrossValues, bool Exact>
inline void attend(const Attention& call, const Head& head, float factor, Block& work) {
  const int64_t packed = call.depth / Op::kPack;
  if constexpr (Exact) {
    for (Vector& shift : work.shift) shift = broadcast(-INFINITY);
    for (int64_t first = 0; first < call.keys; first += kKeys) {
      const float* keys = head.keys.data + first / kKeys * head.keys.block;
      tiles<1>(least(call.keys - first, kKeys), [&](auto rows, int64_t key) {
        raise_shift<Op, rows, Vectors, AcrossKeys>(head.keys, keys, key, packed, factor, work);
      });
    }
    // A row of -inf alone has no shift: its probabilities are all 0, and so is its result.
    for (Vector& shift : work.shift) shift = shift == -INFINITY ? Vector{} : shift;
  }
  Vector total[2] = {};
  for (int64_t first = 0; first < call.keys; first += kKeys) {
    const int64_t count = least(call.keys - first, kKeys);
    const float* keys = head.keys.data + first / kKeys * head.keys.block;
    const float* values = head.values.data + first / kKeys * head.values.block;
    work.sum[0] = work.sum[1] = Vector{};
    tiles<Op::kPack>(count, [&](auto rows, int64_t key) {
      probabilities<Op, rows, Vectors, AcrossKeys, Exact>(head.keys, keys, key, count, packed, factor, work);
    });
    for (int n = 0; n < Vectors; ++n) total[n] = total[n] + work.sum[n];
    for (int64_t d = 0; d < call.depth; d += kRows) {
      Vector tile[kRows][Vectors] = {};
      multiply<Op, kRows, Vectors, AcrossValues>(AcrossValues ? values + d : values + d * head.values.stride,
                                                 head.values.stride, work.probabilities,
                                                 (count + Op::kPack - 1) / Op::kPack, tile, kLanes);
      float* result = work.result + d * kLanes;
      for (int i = 0; i < kRows; ++i)
        for (int n = 0; n < Vectors; ++n) {
          float* to = result + i * kLanes + n * kWidth;
          store(to, first ? load(to) + tile[i][n] : tile[i][n]);
        }
    }
  }
  work.sum[0] = total[0];
  work.sum[1] = total[1];
}

template <class Op, int Vectors>
inline void attend(const Attention& call, const Head& head, bool exact, float factor, Block& work) {
  const auto with = [&](auto across_keys, auto across_values) {
    constexpr bool kAcrossKeys = across_keys, kAcrossValues = across_values;
    exact ? attend<Op, Vectors, kAcrossKeys, kAcrossValues, true>(call, head, factor, work)
            : attend<Op, Vectors, kAcrossKeys, kAcrossValues, false>(call, head, factor, work);
  };
  using Yes = std::true_type;
  using No = std::false_type;
  // Keys are rows of a product that contracts the depth, values are its columns.
  if (head.keys.depth_contiguous)
    head.values.depth_contiguous ? with(No{}, Yes{}) : with(No{}, No{});
  else
    head.values.depth_contiguous ? with(Yes{}, Yes{}) : with(Yes{}, No{});
}

template <class Op>
inline float largest_square(const float* queries, int64_t packed) {
  Vector sum[2] = {};
  for (int64_t d = 0; d < packed; ++d)
    for (int n = 0; n < 2; ++n) sum[n] = sum[n] + squares<Op>(load(queries + d * kLanes + n * kWidth));
  return largest(larger(ordered(sum[0]), ordered(sum[1])));
}

// One block of at most kLanes queries from `first`.
template <class T, class Op>
inline void run_block(const Attention& call, const Head& head, int64_t index, int64_t first, Block& work) {
  // Queries in float32 carry the scale; pairs would lose bits by it.
  const float factor = call.scale * kLog2E;
  const int64_t packed = call.depth / Op::kPack;
  const int64_t count = least(call.queries - first, kLanes);
  pack_lanes<T, Op>(call.q, start<T>(call.q, call.heads, index) + first * call.q.token, count, call.depth, factor,
                    work.queries);
  // Cauchy and Schwarz, with room for the rounding of the scores.
  const float norms = std::sqrt(largest_square<Op>(work.queries, packed)) * std::sqrt(head.key_square);
  const float bound = 1.0001f * norms * (Op::kPack == 1 ? 1 : std::fabs(factor));
  const bool exact = !(bound <= kLargestScore);
  work.shift[0] = work.shift[1] = broadcast(std::ceil(bound));
  count <= kWidth ? attend<Op, 1>(call, head, exact, factor, work)
                  : attend<Op, 2>(call, head, exact, factor, work);

  Vector inverse[2];
  float* lse = call.lse + index * call.queries + first;
  for (int n = 0; n < 2; ++n) {
    inverse[n] = work.sum[n] == 0.0f ? Vector{} : 1.0f / work.sum[n];
    for (int i = 0; i < kWidth && n * kWidth + i < count; ++i) {
      const float sum = work.sum[n][i];
      lse[n * kWidth + i] = sum == 0 ? 0.0f : (work.shift[n][i] + std::log2(sum)) * kLn2;
    }
  }
  unpack_lanes<T>(call.out, start<T>(call.out, call.heads, index) + first * call.out.token, count, call.depth,
                  inverse, work.result);
}

template <class T, class Op>
inline void run(const Attention& call, int64_t begin, int64_t end) {
  const int64_t blocks = trilemma::query_blocks(call.queries);
  const int64_t key_blocks = (call.keys + kKeys - 1) / kKeys;
  const int64_t lanes = call.depth * kLanes, heads = key_blocks * kKeys * call.depth;
  float* scratch = thread_scratch(2 * lanes + kKeys * kLanes + 2 * heads);
  Block work{};
  work.queries = scratch;
  work.result = scratch + lanes;
  work.probabilities = scratch + 2 * lanes;
  float* const keys = work.probabilities + kKeys * kLanes;

  Head head{};
  for (int64_t item = begin; item < end; ++item) {
    const int64_t index = item / blocks, first = item % blocks * trilemma::kQueryBlock;
    if (item == begin || first == 0) {
      head.keys = pack_keys<T, Op>(call.k, start<T>(call.k, call.heads, index), call.keys, call.depth, keys);
      head.values = pack_values<T, Op>(call.v, start<T>(call.v, call.heads, index), call.keys, call.depth, keys + heads);
      head.key_square = largest_square<Op>(head.keys, call.keys, call.depth / Op::kPack);
    }
    const int64_t last = least(first + trilemma::kQueryBlock, call.queries);
    for (int64_t at = first; at < last; at += kLanes) run_block<T, Op>(call, head, index, at, work);
  }
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void attention_float32(const Attention& call, int64_t begin, int64_t end) { run<Float32, Single>(call, begin, end); }

void attention_bfloat16(const Attention& call, int64_t begin, int64_t end) {
#ifdef __AVX512BF16__
  run<BFloat16, Pair>(call, begin, end);
#else
  run<BFloat16, Single>(call, begin, end);
#endif
}

void attention_float16(const Attention& call, int64_t begin, int64_t end) { run<Float16, Single>(call, begin, end); }

}  // namespace trilemma::cpu::TRILEMMA_ISA
