// Where the elements of a group lie, and what is done to each.

#pragma once

#include "launch.cuh"
#include "reduce.cuh"
#include "trilemma/cuda_group_norm.h"

namespace {

using trilemma::cuda::ChannelVector;
using trilemma::cuda::GroupNorm;

// A thread holds as many words in registers, between the two passes that find the moments of its block's part.
template <int V>
constexpr int kRounds = 8;

// How a group is cut among blocks: `threads` each, a part of `size` elements a block.
struct Cut {
  unsigned threads;
  int64_t size, count;
};

inline Cut cut(int64_t elements, int v, int rounds) {
  const int64_t words = (elements + v - 1) / v;
  const auto threads = static_cast<unsigned>(words < kThreads ? (words + 31) / 32 * 32 : kThreads);
  const int64_t size = int64_t{threads} * v * rounds;
  return {threads, size, (elements + size - 1) / size};
}

__device__ __forceinline__ float channel_number(const ChannelVector& vector, int64_t sample, int64_t channel) {
  const int64_t at = sample * vector.stride + channel;
  switch (vector.storage) {
    case trilemma::cpu::kBFloat16: return BFloat16::load(static_cast<const BFloat16*>(vector.data)[at]);
    case trilemma::cpu::kFloat16: return Float16::load(static_cast<const Float16*>(vector.data)[at]);
    default: return static_cast<const float*>(vector.data)[at];
  }
}

__device__ __forceinline__ void set_channel_number(const ChannelVector& vector, int64_t sample, int64_t channel,
                                                   float value) {
  const int64_t at = sample * vector.stride + channel;
  switch (vector.storage) {
    case trilemma::cpu::kBFloat16: static_cast<BFloat16*>(vector.data)[at] = BFloat16::round(value); break;
    case trilemma::cpu::kFloat16: static_cast<Float16*>(vector.data)[at] = Float16::round(value); break;
    default: static_cast<float*>(vector.data)[at] = value;
  }
}

// What a channel of a sample does to a normalised number: h = (normalised weight + bias) gain + shift.
struct alignas(16) Affine {
  float weight, bias, gain, shift;

  __device__ __forceinline__ float operator()(float normalised) const {
    return (normalised * weight + bias) * gain + shift;
  }
};

__device__ __forceinline__ Affine affine_of(const GroupNorm& call, int64_t sample, int64_t channel) {
  Affine affine{1, 0, 1, 0};
  if (call.weight.data) affine.weight = channel_number(call.weight, 0, channel);
  if (call.bias.data) affine.bias = channel_number(call.bias, 0, channel);
  if (call.scale.data) affine.gain = 1.0f + channel_number(call.scale, sample, channel);
  if (call.shift.data) affine.shift = channel_number(call.shift, sample, channel);
  return affine;
}

// Those of a group's channels, for all threads of its block.
using Affines = Affine[trilemma::cuda::kMostGroupChannels];

__device__ __forceinline__ void fill_affines(const GroupNorm& call, int64_t group, Affines& affines) {
  const int width = static_cast<int>(call.channels / call.groups);
  const Place owner = divide(group, call.groups);  // sample, group of the sample
  for (int i = static_cast<int>(threadIdx.x); i < width; i += static_cast<int>(blockDim.x))
    affines[i] = affine_of(call, owner.quotient, owner.remainder * width + i);
  __syncthreads();
}

__device__ __forceinline__ float silu(float h) { return h / (1.0f + expf(-h)); }

// d silu / dh.
__device__ __forceinline__ float silu_slope(float h) {
  const float gate = 1.0f / (1.0f + expf(-h));
  return gate * (1.0f + h * (1.0f - gate));
}

// Element e of a group, numbered as it lies in memory.
struct Located {
  int64_t at;   // in the tensor
  int channel;  // of the group
};

__device__ __forceinline__ Located locate(const GroupNorm& call, int64_t group, int64_t element) {
  const int64_t width = call.channels / call.groups;
  if (call.channels_last) {
    const Place owner = divide(group, call.groups);  // sample, group of the sample
    const Place place = divide(element, width);
    return {(owner.quotient * call.positions + place.quotient) * call.channels + owner.remainder * width +
                place.remainder,
            static_cast<int>(place.remainder)};
  }
  return {group * width * call.positions + element, static_cast<int>(divide(element, call.positions).quotient)};
}

// Calls run(lane, affine) for the V elements of a word that begins in `channel` of the group.
template <int V, class Run>
__device__ __forceinline__ void each_lane(const GroupNorm& call, const Affines& affines, int channel, const Run& run) {
  Affine affine = affines[channel];
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (i > 0 && call.channels_last) affine = affines[channel + i];
    run(i, affine);
  }
}

// Whether words of V elements never straddle two channels (or, channels last, two groups) and can be read at once.
template <class T, class... Pointers>
inline bool wide_words(const GroupNorm& call, Pointers... tensors) {
  const int64_t run = call.channels_last ? call.channels / call.groups : call.positions;
  return run % kWide<T> == 0 && aligned(tensors...);
}

}  // namespace
