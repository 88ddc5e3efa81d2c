// Tiles of attention's tensors in shared memory, in either order of their memory, and the softmax of a row that is seen
// a tile of keys at a time.

#pragma once

#include "launch.cuh"
#include "reduce.cuh"
#include "trilemma/attention.h"

namespace {

using trilemma::Attention;
using trilemma::Heads;

// Which tensors are read and written 16 bytes at a time.
struct Words {
  bool q, k, v, out;
};

// The tokens of one head, contiguous in depth or, `across`, in tokens.
template <class T>
struct Head {
  T* data;
  int64_t token, depth;

  __device__ __forceinline__ Head(const Heads& of, int64_t sample, int64_t head)
      : data(static_cast<T*>(of.data) + sample * of.batch + head * of.head), token(of.token), depth(of.depth) {}

  __device__ __forceinline__ bool across() const { return depth != 1; }
};

// The part of a block in the call.
struct Share {
  int64_t sample, head, first_query;
};

__device__ __forceinline__ Share share_of(const Attention& call, int queries) {
  const Place tile = divide(blockIdx.x, (call.queries + queries - 1) / queries);
  const Place head = divide(tile.quotient, call.heads);
  return {head.quotient, head.remainder, tile.remainder * queries};
}

__device__ __forceinline__ int least(int64_t left, int most) { return left < most ? static_cast<int>(left) : most; }

// Copies `lines` lines of `run` contiguous elements into a tile of kLines lines, kPitch elements apart; zeros the rest.
template <int kLines, int kRun, int kPitch, class T>
__device__ __forceinline__ void copy_in(T* tile, const T* from, int64_t stride, int lines, int run, bool words) {
  constexpr int kEach = kWide<T>, kWords = kRun / kEach;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kLines * kWords; i += static_cast<int>(blockDim.x)) {
    const int line = i / kWords, at = i % kWords * kEach;
    Packed<T, kEach> packed{};
    if (line < lines && at < run) {
      const T* source = from + line * stride;
      if (words && at + kEach <= run) {
        packed.read(source, at);
      } else {
        T parts[kEach];
#pragma unroll
        for (int j = 0; j < kEach; ++j) parts[j] = at + j < run ? source[at + j] : T{};
        memcpy(&packed, parts, sizeof packed);
      }
    }
    packed.write(tile, line * kPitch + at);
  }
}

template <int kLines, int kRun, int kPitch, class T>
__device__ __forceinline__ void copy_out(const T* tile, T* to, int64_t stride, int lines, int run, bool words) {
  constexpr int kEach = kWide<T>, kWords = kRun / kEach;
  for (int i = static_cast<int>(threadIdx.x); i < kLines * kWords; i += static_cast<int>(blockDim.x)) {
    const int line = i / kWords, at = i % kWords * kEach;
    if (line >= lines || at >= run) continue;
    T* target = to + line * stride;
    if (words && at + kEach <= run) {
      Packed<T, kEach> packed;
      packed.read(tile, line * kPitch + at);
      packed.write(target, at);
    } else {
#pragma unroll
      for (int j = 0; j < kEach; ++j)
        if (at + j < run) target[at + j] = tile[line * kPitch + at + j];
    }
  }
}

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// A row's softmax so far, in powers of two: the largest score, and the sum of 2^(score - largest). A thread sums what
// it sees.
struct Softmax {
  float most = -INFINITY, sum = 0;

  // Takes in a tile whose largest score is `largest`: what its scores are relative to, and by what the earlier sums
  // shrink. Of scores that are all -inf every power is zero.
  __device__ __forceinline__ float begin(float largest, float* shrink) {
    const float next = fmaxf(most, largest);
    const float base = next == -INFINITY ? 0.0f : next;
    *shrink = exp2f(most - base);
    most = next;
    sum *= *shrink;
    return base;
  }

  // Of the whole sum. A row of nothing but -inf gives zeros.
  __device__ __forceinline__ float inverse(float whole) const { return whole == 0 ? 0.0f : 1.0f / whole; }
  __device__ __forceinline__ float logsumexp(float whole) const {
    return whole == 0 ? 0.0f : (most + log2f(whole)) * kLn2;
  }
};

// Over the kLanes neighbouring lanes that share a row.
template <int kLanes>
__device__ __forceinline__ float largest_of(float value) {
#pragma unroll
  for (int distance = kLanes / 2; distance; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(kWholeWarp, value, distance));
  return value;
}

template <int kLanes>
__device__ __forceinline__ float sum_of(float value) {
#pragma unroll
  for (int distance = kLanes / 2; distance; distance /= 2) value += __shfl_xor_sync(kWholeWarp, value, distance);
  return value;
}

}  // namespace
