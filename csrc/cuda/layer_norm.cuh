// The affine maps of layer normalisation, channel by channel.

#pragma once

#include "launch.cuh"
#include "reduce.cuh"
#include "trilemma/cuda.h"

namespace {

using trilemma::LayerNorm;

__device__ __forceinline__ float read_map(const trilemma::PerChannel& map, int64_t sample, int64_t channel,
                                          float absent) {
  if (!map.data) return absent;
  const int64_t at = sample * map.sample + channel * map.channel;
  switch (map.storage) {
    case trilemma::cpu::kBFloat16: return BFloat16::load(static_cast<const BFloat16*>(map.data)[at]);
    case trilemma::cpu::kFloat16: return Float16::load(static_cast<const Float16*>(map.data)[at]);
    default: return static_cast<const float*>(map.data)[at];
  }
}

__device__ __forceinline__ void write_gradient(const trilemma::ChannelGradient& to, int64_t at, float value) {
  switch (to.storage) {
    case trilemma::cpu::kBFloat16: static_cast<BFloat16*>(to.data)[at] = BFloat16::round(value); break;
    case trilemma::cpu::kFloat16: static_cast<Float16*>(to.data)[at] = Float16::round(value); break;
    default: static_cast<float*>(to.data)[at] = value;
  }
}

__device__ __forceinline__ float gain_of(const LayerNorm& call, int64_t sample, int64_t channel) {
  return 1.0f + read_map(call.scale, sample, channel, 0.0f);
}

// A block a token: as many threads as read it in a few words each.
inline unsigned threads_for(int64_t channels, int v) {
  const int64_t words = (channels + v - 1) / v;
  return static_cast<unsigned>(words < kThreads ? (words + 31) / 32 * 32 : kThreads);
}

// Calls run(channel, word) for the words of a token that this thread reads.
template <class T, int V, class Run>
__device__ __forceinline__ void each_word(const void* tokens, int64_t token, int64_t channels, const Run& run) {
#pragma unroll 1
  for (int64_t channel = int64_t{threadIdx.x} * V; channel < channels; channel += int64_t{blockDim.x} * V) {
    Packed<T, V> word;
    word.read(tokens, token * channels + channel);
    run(channel, word);
  }
}

}  // namespace
