// The affine maps of group normalisation, folded channel by channel. Internal linkage.

#pragma once

#include <cstdlib>

#include "storage.h"
#include "trilemma/cpu.h"
#include "trilemma/group_norm.h"

namespace {

inline float read(const trilemma::PerChannel& values, int64_t sample, int64_t channel, float absent) {
  if (!values.data) return absent;
  const int64_t at = sample * values.sample + channel * values.channel;
  switch (values.storage) {
    case trilemma::cpu::kBFloat16: return BFloat16::load(static_cast<const BFloat16*>(values.data)[at]);
    case trilemma::cpu::kFloat16: return Float16::load(static_cast<const Float16*>(values.data)[at]);
    default: return static_cast<const float*>(values.data)[at];
  }
}

inline void write(const trilemma::ChannelGradient& out, int64_t at, double value) {
  const float rounded = static_cast<float>(value);
  switch (out.storage) {
    case trilemma::cpu::kBFloat16: static_cast<BFloat16*>(out.data)[at] = BFloat16::round(rounded); return;
    case trilemma::cpu::kFloat16: static_cast<Float16*>(out.data)[at] = Float16::round(rounded); return;
    default: static_cast<float*>(out.data)[at] = rounded;
  }
}

// A channel of a sample and its group, walked in order: divisions are slow beside a short row.
class Place {
 public:
  Place(const trilemma::GroupNorm& call, int64_t row)
      : call_(call), sample(row / call.channels), channel(row % call.channels), group(sample * call.groups) {
    group += channel / call.per_group;
    in_group_ = channel % call.per_group;
  }
  void next() {
    if (++in_group_ == call_.per_group) {
      in_group_ = 0;
      ++group;
    }
    if (++channel == call_.channels) {
      channel = 0;
      ++sample;
    }
  }

 private:
  const trilemma::GroupNorm& call_;
  int64_t in_group_;

 public:
  int64_t sample, channel, group;
};

// u = slope x̂ + offset.
struct Affine {
  float slope, offset;
};

inline Affine affine(const trilemma::GroupNorm& call, const Place& at) {
  const float scale = 1.0f + read(call.scale, at.sample, at.channel, 0.0f);
  return {read(call.weight, 0, at.channel, 1.0f) * scale,
          read(call.bias, 0, at.channel, 0.0f) * scale + read(call.shift, at.sample, at.channel, 0.0f)};
}

// Floats for the length of a call.
class Buffer {
 public:
  explicit Buffer(int64_t count)
      : floats_(static_cast<float*>(std::malloc(static_cast<size_t>(count) * sizeof(float)))) {
    if (!floats_) std::abort();
  }
  ~Buffer() { std::free(floats_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  float* get() const { return floats_; }

 private:
  float* floats_;
};

// With channels last a run of pixels is read as rows of whole registers' worth: the channels, repeated.
inline int64_t row_pixels(int64_t channels) { return channels >= 64 ? 1 : (63 + channels) / channels; }

}  // namespace
