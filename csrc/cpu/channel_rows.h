// The affine maps of a sample's channels as rows of floats, for tokens whose channels lie together. Internal linkage.

#pragma once

#include "lanes.h"
#include "trilemma/cpu.h"

namespace {

template <class T>
void widen(const void* from, int64_t stride, int64_t count, float* to) {
  const T* values = static_cast<const T*>(from);
  int64_t i = 0;
  if (stride == 1)
    for (; i + kLanes <= count; i += kLanes) store(to + i, load(values + i));
  for (; i < count; ++i) to[i] = T::load(values[i * stride]);
}

// The numbers of channels [0, count) of a sample; `absent` where there are none.
inline void read_row(const trilemma::PerChannel& from, int64_t sample, int64_t count, float absent, float* to) {
  if (!from.data) {
    for (int64_t i = 0; i < count; ++i) to[i] = absent;
    return;
  }
  const int64_t at = sample * from.sample;
  switch (from.storage) {
    case trilemma::cpu::kBFloat16:
      return widen<BFloat16>(static_cast<const BFloat16*>(from.data) + at, from.channel, count, to);
    case trilemma::cpu::kFloat16:
      return widen<Float16>(static_cast<const Float16*>(from.data) + at, from.channel, count, to);
    default: return widen<Float32>(static_cast<const Float32*>(from.data) + at, from.channel, count, to);
  }
}

// u = slope x̂ + offset. `spare` holds as many floats as there are channels.
inline void read_affine(const trilemma::LayerNorm& call, int64_t sample, float* slope, float* offset, float* spare) {
  const int64_t channels = call.channels;
  read_row(call.weight, 0, channels, 1.0f, slope);
  read_row(call.bias, 0, channels, 0.0f, offset);
  if (call.scale.data) {
    read_row(call.scale, sample, channels, 0.0f, spare);
    for (int64_t i = 0; i < channels; ++i) {
      slope[i] *= 1.0f + spare[i];
      offset[i] *= 1.0f + spare[i];
    }
  }
  if (call.shift.data) {
    read_row(call.shift, sample, channels, 0.0f, spare);
    for (int64_t i = 0; i < channels; ++i) offset[i] += spare[i];
  }
}

}  // namespace
