// Mean and variance of the groups. Internal linkage.
//
// Piece by piece: its sum, then, from the nearest cache, the moments about its own mean, merged in float64 (Chan, Golub,
// LeVeque: Algorithms for computing the sample variance. Am. Stat. 1983).

#pragma once

#include "channel_affine.h"
#include "lanes.h"
#include "trilemma/group_norm.h"

namespace {

using trilemma::GroupNorm;

struct Moments {
  double mean, squares;  // squares: of the distances from the mean, summed
};

// Of a stretch that the nearest cache holds.
template <class T>
Moments moments(const T* x, int64_t count) {
  constexpr int kStep = 4 * kLanes;
  const int64_t body = count / kStep * kStep, lanes = count / kLanes * kLanes;
  Lanes s0{}, s1{}, s2{}, s3{};
  for (int64_t i = 0; i < body; i += kStep) {
    s0 += load(x + i);
    s1 += load(x + i + kLanes);
    s2 += load(x + i + 2 * kLanes);
    s3 += load(x + i + 3 * kLanes);
  }
  for (int64_t i = body; i < lanes; i += kLanes) s0 += load(x + i);
  if (lanes < count) s1 += load(x + lanes, count - lanes);
  const auto number = static_cast<double>(count);
  const float centre = static_cast<float>(sum((s0 + s1) + (s2 + s3)) / number);

  Lanes d0{}, d1{}, d2{}, d3{}, q0{}, q1{}, q2{}, q3{};
  for (int64_t i = 0; i < body; i += kStep) {
    const Lanes x0 = load(x + i) - centre, x1 = load(x + i + kLanes) - centre;
    const Lanes x2 = load(x + i + 2 * kLanes) - centre, x3 = load(x + i + 3 * kLanes) - centre;
    d0 += x0, d1 += x1, d2 += x2, d3 += x3;
    q0 += x0 * x0, q1 += x1 * x1, q2 += x2 * x2, q3 += x3 * x3;
  }
  for (int64_t i = body; i < lanes; i += kLanes) {
    const Lanes x0 = load(x + i) - centre;
    d0 += x0;
    q0 += x0 * x0;
  }
  if (lanes < count) {
    const Lanes x0 = first(load(x + lanes, count - lanes) - centre, count - lanes);
    d1 += x0;
    q1 += x0 * x0;
  }
  const double off = sum((d0 + d1) + (d2 + d3));
  return {centre + off / number, sum((q0 + q1) + (q2 + q3)) - off * (off / number)};
}

// Adds x of a run of pixels, or its distances from `centre` and their squares, to rows of `width` floats.
template <class T>
void add(const T* x, int64_t count, int64_t width, float* sums) {
  const auto step = [&](int64_t at, int64_t i) { store(sums + i, load(sums + i) + load(x + at)); };
  int64_t row = 0;
  for (; row + 4 * width <= count; row += 4 * width) {
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) {
      const T* at = x + row + i;
      const Lanes four = (load(at) + load(at + width)) + (load(at + 2 * width) + load(at + 3 * width));
      store(sums + i, load(sums + i) + four);
    }
    for (; i < width; ++i)
      for (int64_t k = 0; k < 4; ++k) sums[i] += T::load(x[row + k * width + i]);
  }
  for (; row < count; row += width) {
    const int64_t here = count - row < width ? count - row : width;
    int64_t i = 0;
    for (; i + kLanes <= here; i += kLanes) step(row + i, i);
    for (; i < here; ++i) sums[i] += T::load(x[row + i]);
  }
}

template <class T>
void add_squares(const T* x, int64_t count, int64_t width, const float* centre, float* off, float* squares) {
  for (int64_t row = 0; row < count;) {
    const int64_t rows = row + 4 * width <= count ? 4 : 1;
    const int64_t here = count - row < width ? count - row : width;
    int64_t i = 0;
    for (; i + kLanes <= here; i += kLanes) {
      const Lanes c = load(centre + i);
      Lanes d = load(off + i), q = load(squares + i);
      const T* at = x + row + i;
      const Lanes x0 = load(at) - c;
      d += x0;
      q += x0 * x0;
      if (rows == 4) {
        const Lanes x1 = load(at + width) - c, x2 = load(at + 2 * width) - c, x3 = load(at + 3 * width) - c;
        d += x1 + (x2 + x3);
        q += x1 * x1 + (x2 * x2 + x3 * x3);
      }
      store(off + i, d);
      store(squares + i, q);
    }
    for (; i < here; ++i)
      for (int64_t k = 0; k < rows; ++k) {
        const float x0 = T::load(x[row + k * width + i]) - centre[i];
        off[i] += x0;
        squares[i] += x0 * x0;
      }
    row += rows * width;
  }
}

// The moments of every group over a run of pixels.
template <class T>
void moments_of_pixels(const GroupNorm& call, const T* x, int64_t pixels, float* buffer, double* out) {
  const int64_t channels = call.channels, width = row_pixels(channels) * channels;
  float *centre = buffer, *off = buffer + width, *squares = buffer + 2 * width;
  for (int64_t i = 0; i < 3 * width; ++i) buffer[i] = 0.0f;
  add(x, pixels * channels, width, centre);
  const auto fold = [&](float* rows) {
    for (int64_t i = channels; i < width; ++i) rows[i % channels] += rows[i];
  };
  fold(centre);
  const float share = 1.0f / static_cast<float>(pixels);
  for (int64_t c = 0; c < channels; ++c) centre[c] *= share;
  for (int64_t i = channels; i < width; ++i) centre[i] = centre[i - channels];
  add_squares(x, pixels * channels, width, centre, off, squares);
  fold(off);
  fold(squares);

  const int64_t per_group = call.per_group;
  const auto number = static_cast<double>(pixels);
  for (int64_t g = 0; g < call.groups; ++g) {
    const int64_t begin = g * per_group;
    double mean = 0, within = 0, between = 0;
    for (int64_t c = begin; c < begin + per_group; ++c) {
      const double apart = off[c] / number;
      mean += centre[c] + apart;
      within += squares[c] - off[c] * apart;
    }
    mean /= static_cast<double>(per_group);
    for (int64_t c = begin; c < begin + per_group; ++c) {
      const double apart = centre[c] + off[c] / number - mean;
      between += apart * apart;
    }
    out[2 * g] = mean;
    out[2 * g + 1] = within + number * between;
  }
}

// The moments of pieces [begin, end), by their number among those of all units.
template <class T>
void reduce(const GroupNorm& call, double* partial, int64_t begin, int64_t end) {
  const T* x = static_cast<const T*>(call.x);
  const int64_t pieces = call.pieces, length = call.piece;
  const Buffer buffer(call.channels_last ? 3 * row_pixels(call.channels) * call.channels : 1);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t unit = item / pieces, offset = item % pieces * length;
    const int64_t whole = call.channels_last ? call.spatial : call.per_group * call.spatial;
    const int64_t here = whole - offset < length ? whole - offset : length;
    if (call.channels_last) {
      const T* pixels = x + (unit * call.spatial + offset) * call.channels;
      moments_of_pixels(call, pixels, here, buffer.get(), partial + 2 * item * call.groups);
    } else {
      const Moments found = moments(x + unit * whole + offset, here);
      partial[2 * item] = found.mean;
      partial[2 * item + 1] = found.squares;
    }
  }
}

// The mean of a group and its sum of squares, merged over its pieces.
inline Moments merged(const GroupNorm& call, const double* partial, int64_t unit, int64_t group) {
  const int64_t width = call.channels_last ? call.per_group : 1;  // elements of the group in a pixel
  const int64_t stride = call.channels_last ? 2 * call.groups : 2;
  const int64_t length = call.piece * width, whole = call.per_group * call.spatial, pieces = call.pieces;
  const double* found = partial + unit * pieces * stride + 2 * group;
  double mean = found[0], squares = found[1];
  for (int64_t piece = 1; piece < pieces; ++piece) {
    const auto before = static_cast<double>(piece * length);
    const auto after = static_cast<double>((piece + 1) * length < whole ? (piece + 1) * length : whole);
    const double apart = found[piece * stride] - mean, share = (after - before) / after;
    mean += apart * share;
    squares += found[piece * stride + 1] + apart * apart * (before * share);
  }
  return {mean, squares < 0 ? 0 : squares};
}

}  // namespace
