// The maps of a normalisation's channels, on raw pointers.

#pragma once

#include <cstdint>

namespace trilemma {

// A number for each channel, or each channel of each sample. Strides are in elements.
struct PerChannel {
  const void* data = nullptr;  // absent: null
  int storage = 0;             // of cpu::Storage
  int64_t sample = 0, channel = 0;
};

// Receives gradients of a PerChannel, contiguous [channels] or [samples, channels].
struct ChannelGradient {
  void* data = nullptr;
  int storage = 0;
};

}  // namespace trilemma
