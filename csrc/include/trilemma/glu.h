// Gated linear units: out = a act(g) of the halves (a, g) of each row.

#pragma once

#include <cstdint>

namespace trilemma {

// One call. x and dx are [rows, 2 channels], out and dy [rows, channels], of one element type; the rows of x are dense
// and may lie apart, the others are contiguous.
struct Glu {
  int64_t rows = 0, channels = 0;
  const void* x = nullptr;
  int64_t x_stride = 0;  // elements from a row to the next
  bool silu = false;     // act: SiLU, else GELU by the error function
  void* out = nullptr;
  bool stream = false;  // writes out past the caches
  // Backward.
  const void* dy = nullptr;
  void* dx = nullptr;
};

}  // namespace trilemma
