// Group normalisation with its affine maps, activation and residual, on raw pointers. No torch, no allocation beyond
// a few vectors of the channels.
//
//   u = (x̂ weight + bias)(1 + scale) + shift,  x̂ = (x - mean) rstd,  y = act(u) + residual

#pragma once

#include <cstdint>

#include "trilemma/per_channel.h"

namespace trilemma {

// Never a function of its own, which the linker would take from the unit of any instruction set.
#define TRILEMMA_HERE __attribute__((always_inline))

// The work is done for whole units (a group of a sample; with channels last, a sample), or in phases whose work can
// be cut finer. Bits do not depend on which.
enum class Phase : int {
  kWhole,      // units
  kRecentre,   // units; backward only
  kReduce,     // pieces of units; backward, channels first: rows
  kFinish,     // units
  kApply,      // rows: a channel of a sample; with channels last, pieces
  kGradients,  // channels; backward only
};

struct GroupNorm {
  Phase phase = Phase::kWhole;
  int64_t samples = 0, channels = 0, groups = 1;
  int64_t spatial = 1;  // elements of one channel
  bool channels_last = false;
  bool silu = false;
  float eps = 0;
  const void* x = nullptr;  // [samples, channels, spatial] or [samples, spatial, channels], dense
  PerChannel weight, bias, scale, shift;
  float* mean = nullptr;  // [samples, groups]; results, or what forward left
  float* rstd = nullptr;
  float* low = nullptr;        // [samples, groups], scratch: the mean beyond float32
  double* partial = nullptr;   // scratch; backward, moments come after channels

  // Forward.
  const void* residual = nullptr;
  void* y = nullptr;  // may be x or residual
  bool stream = false;  // writes y past the caches

  // Backward.
  const void* dy = nullptr;
  void* dx = nullptr;             // null: not wanted
  double* channel_sums = nullptr; // scratch [samples, channels, 2]: Σ du and Σ du x̂
  float* group_means = nullptr;   // scratch [samples, groups, 2]: means of dx̂ and of dx̂ x̂
  ChannelGradient dweight, dbias, dscale, dshift;

  int64_t per_group = 1;  // channels
  // A unit is cut into pieces of so many elements of a group, or pixels of a sample, the last one shorter.
  int64_t piece = 1, pieces = 1;

  // Finds the three from the rest.
  TRILEMMA_HERE void cut() {
    per_group = channels / groups;
    piece = channels_last ? 16384 / channels : 2048;
    if (piece < 1) piece = 1;
    pieces = ((channels_last ? spatial : per_group * spatial) + piece - 1) / piece;
  }

  TRILEMMA_HERE int64_t units() const { return channels_last ? samples : samples * groups; }
  TRILEMMA_HERE int64_t rows() const { return samples * rows_of_sample(); }
  TRILEMMA_HERE int64_t rows_of_sample() const { return channels_last ? pieces : channels; }
  TRILEMMA_HERE int64_t rows_of_unit() const { return channels_last ? pieces : per_group; }

  // How many doubles `partial` holds: moments of pieces and, backward with channels last, sums of their channels.
  TRILEMMA_HERE int64_t moment_partials() const { return 2 * units() * pieces * (channels_last ? groups : 1); }
  TRILEMMA_HERE int64_t channel_partials() const { return channels_last ? 2 * samples * pieces * channels : 0; }
};

#undef TRILEMMA_HERE

}  // namespace trilemma
