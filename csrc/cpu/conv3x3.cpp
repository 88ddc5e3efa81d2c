// The 3×3 convolution by Winograd's F(4×4, 3×3) (Lavin & Gray, 2015, arXiv 1509.09308): a quarter of the direct
// form's multiplications. Lanes are channels: tiles of 6×6 pixels are transformed for a vector of input channels at a
// time, the 36 products over input channels have output channels as lanes, and their sums become 4×4 pixels. A block of
// tiles does all of this in the second cache; only x, the filters and y pass by.

#include "trilemma/conv3x3.h"

#include "product.h"
#include "scratch.h"
#include "storage.h"

namespace trilemma::cpu::TRILEMMA_ISA {
namespace {

constexpr int kSquare = kPoints * kPoints;
constexpr int kReach = kPoints - kTile;  // columns that a row of tiles reads beyond its own
// Planes a cache line apart from a power of two: else all 36 meet in one set of the cache.
constexpr int64_t kSkew = 16;
// Terms that are added up before their sum is added: most of the error is that of long sums.
template <class T>
constexpr int64_t kTerms = std::is_same_v<T, Float32> ? 64 : 1 << 20;

// Neighbouring tiles of one row of tiles.
struct Segment {
  int64_t sample, row, first, count, at;  // `at`: the first one's place in its block
};

template <class F>
TRILEMMA_INLINE void segments(const Conv3x3& call, int64_t begin, int64_t end, F&& f) {
  const int64_t across = call.tiles_across(), down = call.tiles_down();
  for (int64_t tile = begin; tile < end;) {
    const int64_t row = tile / across, first = tile % across;
    const int64_t count = least(across - first, end - tile);
    f(Segment{row / down, row % down, first, count, tile - begin});
    tile += count;
  }
}

// The values of the polynomial with coefficients d at the points; the columns (or rows) of a tile.
TRILEMMA_INLINE void evaluate(const Vector (&d)[kPoints], Vector (&v)[kPoints]) {
  constexpr float a = kNear, b = kFar, aa = a * a, bb = b * b;
  const Vector even_a = d[4] - bb * d[2], odd_a = d[3] - bb * d[1];
  const Vector even_b = d[4] - aa * d[2], odd_b = d[3] - aa * d[1];
  v[0] = aa * bb * d[0] + (d[4] - (aa + bb) * d[2]);
  v[1] = even_a + a * odd_a;
  v[2] = even_a - a * odd_a;
  v[3] = even_b + b * odd_b;
  v[4] = even_b - b * odd_b;
  v[5] = aa * bb * d[1] + (d[5] - (aa + bb) * d[3]);
}

// The four output pixels of a line from the sums at the points.
TRILEMMA_INLINE void interpolate(const Vector (&m)[kPoints], Vector (&y)[kTile]) {
  constexpr float a = kNear, b = kFar;
  const Vector even_a = m[1] + m[2], odd_a = m[1] - m[2];
  const Vector even_b = m[3] + m[4], odd_b = m[3] - m[4];
  y[0] = m[0] + (even_a + even_b);
  y[1] = a * odd_a + b * odd_b;
  y[2] = a * a * even_a + b * b * even_b;
  y[3] = a * a * a * odd_a + (b * b * b * odd_b + m[5]);
}

// Rows of pixels with channels as lanes, [kPoints][columns][kWidth], of `channels` channels from x on: the columns from
// `low` - 1 on, zero outside of the image.
template <class T>
inline void fill_strip(const Conv3x3& call, const T* x, int64_t channels, const Segment& part, int64_t low,
                       int64_t columns, float* strip) {
  const int64_t high = least(call.width, kTile * (part.first + part.count) + 1);
  const int64_t pixels = call.height * call.width;
  const T* const end = static_cast<const T*>(call.x) + call.samples * call.in_channels * pixels;
  for (int r = 0; r < kPoints; ++r, strip += columns * kWidth) {
    const int64_t y = kTile * part.row + r - 1;
    if (y < 0 || y >= call.height) {
      for (int64_t j = 0; j < columns; ++j) store(strip + j * kWidth, Vector{});
      continue;
    }
    store(strip, Vector{});
    for (int64_t j = high - low + 1; j < columns; ++j) store(strip + j * kWidth, Vector{});
    float* to = strip + kWidth;
    if (call.channels_last) {
      const T* from = x + (y * call.width + low) * call.in_channels;
      for (int64_t j = low; j < high; ++j, from += call.in_channels, to += kWidth)
        store(to, load_some(from, channels));
      continue;
    }
    const T* from = x + y * call.width;
    for (int64_t j = low; j < high; j += kWidth, to += kWidth * kWidth) {
      const int64_t count = least(high - j, kWidth);
      Vector square[kWidth];
      for (int c = 0; c < kWidth; ++c) {
        const T* line = from + c * pixels + j;
        square[c] = c >= channels ? Vector{} : load_some(line, end - line < kWidth ? count : kWidth);
      }
      transpose(square);
      for (int i = 0; i < count; ++i) store(to + i * kWidth, square[i]);
    }
  }
}

// The tiles of a block at the points: V[point][tile][channel], planes `plane` floats apart.
template <class T>
inline void transform_tiles(const Conv3x3& call, int64_t begin, int64_t end, int64_t stride, int64_t plane, float* V,
                            float* strip) {
  const int64_t pixels = call.height * call.width;
  segments(call, begin, end, [&](const Segment& part) {
    const int64_t left = kTile * part.first - 1, low = left < 0 ? 0 : left / kWidth * kWidth;
    const int64_t columns = kTile * (part.first + part.count) + 2 - low;
    for (int64_t c = 0; c < call.in_channels; c += kWidth) {
      const T* x = static_cast<const T*>(call.x) + part.sample * call.in_channels * pixels +
                   c * (call.channels_last ? 1 : pixels);
      fill_strip(call, x, least(call.in_channels - c, kWidth), part, low, columns, strip);
      for (int64_t i = 0; i < part.count; ++i) {
        const float* tile = strip + (kTile * (part.first + i) - low) * kWidth;
        Vector half[kPoints][kPoints];
#pragma GCC unroll 6
        for (int r = 0; r < kPoints; ++r) {
          Vector d[kPoints];
#pragma GCC unroll 6
          for (int j = 0; j < kPoints; ++j) d[j] = load(tile + (r * columns + j) * kWidth);
          evaluate(d, half[r]);
        }
        float* to = V + (part.at + i) * stride + c;
#pragma GCC unroll 6
        for (int j = 0; j < kPoints; ++j) {
          Vector d[kPoints], v[kPoints];
#pragma GCC unroll 6
          for (int r = 0; r < kPoints; ++r) d[r] = half[r][j];
          evaluate(d, v);
#pragma GCC unroll 6
          for (int r = 0; r < kPoints; ++r) store(to + (r * kPoints + j) * plane, v[r]);
        }
      }
    }
  });
}

// M[tile][output channel] = sum over input channels, at one point.
template <class T, int Vectors>
inline void products(const float* V, int64_t stride, const float* U, int64_t depth, int64_t tiles_left, int64_t width,
                     float* M) {
  tiles<1>(tiles_left, [&](auto rows, int64_t at) {
    for (int64_t k = 0; k < width; k += Vectors * kWidth) {
      for (int64_t c = 0; c < depth; c += kTerms<T>) {
        Vector sum[rows.value][Vectors] = {};
        multiply<Single, rows.value, Vectors, false>(V + at * stride + c, stride, U + c * width + k,
                                                     least(depth - c, kTerms<T>), sum, width);
#pragma GCC unroll 8
        for (int i = 0; i < rows.value; ++i)
#pragma GCC unroll 2
          for (int n = 0; n < Vectors; ++n) {
            float* to = M + (at + i) * width + k + n * kWidth;
            store(to, c ? load(to) + sum[i][n] : sum[i][n]);
          }
      }
    }
  });
}

// Pixels of a segment's tiles from M, for one vector of output channels, to y; `row` holds [kTile][columns][kWidth].
template <class T>
inline void write_pixels(const Conv3x3& call, const Segment& part, const float* M, int64_t width, int64_t plane,
                         int64_t first, float* row) {
  const int64_t columns = kTile * part.count, pixels = call.height * call.width;
  const int64_t channels = least(call.out_channels - first, kWidth);
  const Vector bias = call.bias ? load_some(reinterpret_cast<const Float32*>(call.bias) + first, channels) : Vector{};
  for (int64_t i = 0; i < part.count; ++i) {
    const float* from = M + (part.at + i) * width;
    Vector half[kTile][kPoints];
#pragma GCC unroll 6
    for (int j = 0; j < kPoints; ++j) {
      Vector m[kPoints], y[kTile];
#pragma GCC unroll 6
      for (int r = 0; r < kPoints; ++r) m[r] = load(from + (r * kPoints + j) * plane);
      interpolate(m, y);
#pragma GCC unroll 4
      for (int r = 0; r < kTile; ++r) half[r][j] = y[r];
    }
#pragma GCC unroll 4
    for (int r = 0; r < kTile; ++r) {
      Vector y[kTile];
      interpolate(half[r], y);
#pragma GCC unroll 4
      for (int j = 0; j < kTile; ++j) store(row + (r * columns + kTile * i + j) * kWidth, y[j] + bias);
    }
  }
  T* const sample = static_cast<T*>(call.y) + part.sample * call.out_channels * pixels;
  const int64_t left = kTile * part.first, count = least(columns, call.width - left);
  for (int r = 0; r < kTile && kTile * part.row + r < call.height; ++r) {
    const int64_t pixel = (kTile * part.row + r) * call.width + left;
    const float* from = row + r * columns * kWidth;
    if (call.channels_last) {
      T* to = sample + pixel * call.out_channels + first;
      for (int64_t j = 0; j < count; ++j) store_some(to + j * call.out_channels, load(from + j * kWidth), channels);
      continue;
    }
    T* to = sample + first * pixels + pixel;
    for (int64_t j = 0; j < count; j += kWidth) {
      Vector square[kWidth];
      for (int i = 0; i < kWidth; ++i) square[i] = j + i < count ? load(from + (j + i) * kWidth) : Vector{};
      transpose(square);
      for (int c = 0; c < channels; ++c) store_some(to + c * pixels + j, square[c], least(count - j, kWidth));
    }
  }
}

template <class T>
void run(const Conv3x3& call, int64_t begin, int64_t end) {
  const int64_t block = call.tile_block(), depth = call.in_channels;
  const int64_t stride = (depth + kWidth - 1) / kWidth * kWidth;
  const int64_t plane = block * stride + kSkew, sums = block * kFilterBlock + kSkew;
  const int64_t columns = kTile * least(block, call.tiles_across()) + kReach + kWidth;
  float* const V = thread_scratch(kSquare * (plane + sums) + kPoints * columns * kWidth);
  float* const M = V + kSquare * plane;
  float* const strip = M + kSquare * sums;
  int64_t there = -1;  // the block of tiles in V
  for (int64_t item = begin; item < end; ++item) {
    const int64_t tile = item / call.splits * block, last = least(tile + block, call.tiles()), split = item % call.splits;
    if (there != tile) transform_tiles<T>(call, tile, last, stride, plane, V, strip);
    there = tile;
    const int64_t from = call.filter_blocks() * split / call.splits, to = call.filter_blocks() * (split + 1) / call.splits;
    for (int64_t k = from * kFilterBlock; k < least(to * kFilterBlock, call.out_channels); k += kFilterBlock) {
      const int64_t width = filter_width(call.out_channels, k);
      const float* U = call.filters + kSquare * depth * k;
      for (int p = 0; p < kSquare; ++p, U += depth * width)
        if (width >= 2 * kWidth)
          products<T, 2>(V + p * plane, stride, U, depth, last - tile, width, M + p * sums);
        else
          products<T, 1>(V + p * plane, stride, U, depth, last - tile, width, M + p * sums);
      segments(call, tile, last, [&](const Segment& part) {
        for (int64_t n = 0; n < width && k + n < call.out_channels; n += kWidth)
          write_pixels<T>(call, part, M + n, width, sums, k + n, strip);
      });
    }
  }
}

}  // namespace

void conv3x3_float32(const Conv3x3& call, int64_t begin, int64_t end) { run<Float32>(call, begin, end); }
void conv3x3_bfloat16(const Conv3x3& call, int64_t begin, int64_t end) { run<BFloat16>(call, begin, end); }
void conv3x3_float16(const Conv3x3& call, int64_t begin, int64_t end) { run<Float16>(call, begin, end); }

}  // namespace trilemma::cpu::TRILEMMA_ISA
