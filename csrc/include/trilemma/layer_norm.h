// Normalisation of the channels of each token, with its affine maps, on raw pointers. No torch, no allocation beyond a few
// vectors of the channels.
//
//   y = (x̂ weight + bias)(1 + scale) + shift,  x̂ = (x - mean) rstd

#pragma once

#include <cstdint>

#include "trilemma/per_channel.h"

namespace trilemma {

struct LayerNorm {
  int64_t samples = 0, tokens = 0, channels = 0;
  float eps = 0;
  const void* x = nullptr;  // [samples, tokens, channels], dense
  PerChannel weight, bias, scale, shift;
  float* mean = nullptr;  // [samples, tokens]; results, or what forward left
  float* rstd = nullptr;

  // Forward, tokens [begin, end) of all samples.
  void* y = nullptr;
  bool stream = false;  // writes y past the caches

  // Backward, pieces [begin, end): a sample's tokens are cut into pieces of so many, the last one shorter. Then, where
  // `partial` is given, its sums are added up for channels [begin, end).
  bool adds_up = false;
  const void* dy = nullptr;
  void* dx = nullptr;        // null: not wanted
  float* partial = nullptr;  // scratch [samples, pieces, 2, channels]: Σ dy and Σ dy x̂; null: no map's gradient is wanted
  ChannelGradient dweight, dbias, dscale, dshift;
  int64_t piece = 1, pieces = 1;
};

}  // namespace trilemma
