// Group normalisation on raw device pointers, with what follows it in a network:
//
//   n = (x - mean) rstd weight + bias,  h = n (1 + scale) + shift,  y = act(h) + residual
//
// mean and rstd are a group's, weight and bias a channel's, scale and shift a channel's of a sample.

#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "trilemma/cpu.h"

namespace trilemma::cuda {

using cpu::Storage;

constexpr int64_t kMostGroupChannels = 1024;

// One number a channel, or one a channel of a sample; absent where `data` is null.
struct ChannelVector {
  void* data = nullptr;
  int64_t stride = 0;  // from one sample to the next
  Storage storage = cpu::kFloat32;
};

// One call. x, y, residual, dy and dx are dense, of one element type and one layout, [samples, channels, positions] or
// channels-last [samples, positions, channels].
struct GroupNorm {
  int64_t samples = 0, channels = 0, positions = 0, groups = 1;  // at most kMostGroupChannels channels a group
  bool channels_last = false;
  bool silu = false;
  float eps = 0;
  const void* x = nullptr;
  const void* residual = nullptr;
  ChannelVector weight, bias, scale, shift;
  float* mean = nullptr;  // [samples, groups]
  float* rstd = nullptr;
  void* y = nullptr;
  float* scratch = nullptr;  // as many numbers as the functions below say
  // of the backward alone; absent what nobody wants
  const void* dy = nullptr;
  void* dx = nullptr;
  ChannelVector dweight, dbias, dscale, dshift;
};

int64_t group_norm_scratch(const GroupNorm&, Storage);
cudaError_t group_norm(const GroupNorm&, Storage, cudaStream_t);

int64_t group_norm_backward_scratch(const GroupNorm&, Storage);
cudaError_t group_norm_backward(const GroupNorm&, Storage, cudaStream_t);

}  // namespace trilemma::cuda
