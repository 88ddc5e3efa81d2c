// A 3×3 convolution with one pixel of zeros around, by Winograd's F(4×4, 3×3): arguments and the filters' layout.

#pragma once

#include <cstdint>

namespace trilemma {

// Output pixels of a tile's side, and the points (and zero and infinity) at which a tile's polynomials are evaluated:
// +-5/8 and +-3/2 lose the fewest digits of the pairs that are short in binary.
constexpr int kTile = 4;
constexpr int kPoints = 6;
constexpr float kNear = 0.625f, kFar = 1.5f;

// Output channels of a block of the filters, and of a last block where no more are left.
constexpr int kFilterBlock = 32, kLastBlock = 16;

// The filters transformed: for each block of output channels [kPoints²][in_channels][its width], zero beyond the last.
inline int64_t filter_width(int64_t out_channels, int64_t first) {
  return out_channels - first > kLastBlock ? kFilterBlock : kLastBlock;
}

inline int64_t padded_filters(int64_t out_channels) {
  return (out_channels + kLastBlock - 1) / kLastBlock * kLastBlock;
}

struct Conv3x3 {
  int64_t samples, in_channels, out_channels, height, width;
  bool channels_last;    // of x and y alike
  const void* x;         // [samples, in_channels, height, width]
  const float* filters;  // of padded_filters(out_channels) output channels
  const float* bias;     // [out_channels], or null
  void* y;               // [samples, out_channels, height, width]
  int64_t splits = 1;    // parts of the output channels that are separate work

  int64_t tiles_down() const { return (height + kTile - 1) / kTile; }
  int64_t tiles_across() const { return (width + kTile - 1) / kTile; }
  int64_t tiles() const { return samples * tiles_down() * tiles_across(); }
  // As many tiles as leave their transforms in a second cache of 1 MB, with room for what streams by.
  int64_t tile_block() const {
    const int64_t fitting = 2048 / in_channels / 8 * 8;
    return fitting < 8 ? 8 : fitting > 64 ? 64 : fitting;
  }
  int64_t tile_blocks() const { return (tiles() + tile_block() - 1) / tile_block(); }
  int64_t filter_blocks() const { return (padded_filters(out_channels) + kFilterBlock - 1) / kFilterBlock; }
  // Items of work: blocks of tiles, times the splits.
  int64_t items() const { return tile_blocks() * splits; }
};

}  // namespace trilemma
