// Group normalisation for the CPU, forward. CMake builds this file once an instruction set.
//
// The mean is kept as two floats: the first is subtracted from x, exactly where the mean is large, and the second is
// folded into the offset.

#include "group_moments.h"

namespace {

using trilemma::Phase;

void finish(const GroupNorm& call, int64_t begin, int64_t end) {
  const int64_t groups = call.channels_last ? call.groups : 1;  // of a unit
  const auto count = static_cast<double>(call.per_group * call.spatial);
  for (int64_t unit = begin; unit < end; ++unit)
    for (int64_t g = 0; g < groups; ++g) {
      const Moments found = merged(call, call.partial, unit, g);
      const int64_t group = unit * groups + g;
      call.mean[group] = static_cast<float>(found.mean);
      call.low[group] = static_cast<float>(found.mean - call.mean[group]);
      call.rstd[group] = static_cast<float>(1 / __builtin_sqrt(found.squares / count + call.eps));
    }
}

// y = act((x - mean) slope + offset) + residual.
struct Map {
  float mean, slope, offset;
};

Map map(const GroupNorm& call, const Place& at) {
  const Affine known = affine(call, at);
  const float slope = known.slope * call.rstd[at.group];
  return {call.mean[at.group], slope, known.offset - call.low[at.group] * slope};
}

template <bool kSilu>
TRILEMMA_INLINE Lanes activate(Lanes x, Lanes mean, Lanes slope, Lanes offset) {
  const Lanes u = (x - mean) * slope + offset;
  if constexpr (kSilu)
    return silu(u);
  else
    return u;
}

template <class T, bool kSilu, bool kResidual>
void apply_row(const T* x, const T* residual, T* y, int64_t count, Map row) {
  const Lanes mean = all(row.mean), slope = all(row.slope), offset = all(row.offset);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Lanes out = activate<kSilu>(load(x + i), mean, slope, offset);
    if constexpr (kResidual) out += load(residual + i);
    store(y + i, out);
  }
  if (i < count) {
    Lanes out = activate<kSilu>(load(x + i, count - i), mean, slope, offset);
    if constexpr (kResidual) out += load(residual + i, count - i);
    store(y + i, out, count - i);
  }
}

// A run of pixels; the maps lie in `maps` as width means, width slopes, width offsets.
template <class T, bool kSilu, bool kResidual>
void apply_pixels(const T* x, const T* residual, T* y, int64_t count, int64_t width, const float* maps) {
  for (int64_t row = 0; row < count; row += width) {
    const int64_t here = count - row < width ? count - row : width;
    int64_t i = 0;
    for (; i + kLanes <= here; i += kLanes) {
      Lanes out = activate<kSilu>(load(x + row + i), load(maps + i), load(maps + width + i),
                                  load(maps + 2 * width + i));
      if constexpr (kResidual) out += load(residual + row + i);
      store(y + row + i, out);
    }
    if (const int64_t left = here - i; left > 0) {
      const float* at = maps + i;
      Lanes out = activate<kSilu>(load(x + row + i, left), load(reinterpret_cast<const Float32*>(at), left),
                                  load(reinterpret_cast<const Float32*>(at + width), left),
                                  load(reinterpret_cast<const Float32*>(at + 2 * width), left));
      if constexpr (kResidual) out += load(residual + row + i, left);
      store(y + row + i, out, left);
    }
  }
}

template <class T, bool kSilu, bool kResidual>
void apply(const GroupNorm& call, int64_t begin, int64_t end) {
  const T *x = static_cast<const T*>(call.x), *residual = static_cast<const T*>(call.residual);
  T* y = static_cast<T*>(call.y);
  if (!call.channels_last) {
    Place place(call, begin);
    for (int64_t row = begin; row < end; ++row, place.next()) {
      const int64_t at = row * call.spatial;
      apply_row<T, kSilu, kResidual>(x + at, residual + (kResidual ? at : 0), y + at, call.spatial,
                                     map(call, place));
    }
    return;
  }
  const int64_t channels = call.channels, width = row_pixels(channels) * channels, pieces = call.pieces;
  const Buffer buffer(3 * width);
  float* maps = buffer.get();
  for (int64_t row = begin; row < end; ++row) {
    const int64_t sample = row / pieces, offset = row % pieces * call.piece;
    if (row == begin || offset == 0) {
      Place place(call, sample * channels);
      for (int64_t i = 0; i < channels; ++i, place.next()) {
        const Map here = map(call, place);
        maps[i] = here.mean;
        maps[width + i] = here.slope;
        maps[2 * width + i] = here.offset;
      }
      for (int64_t i = 0; i < 3 * width; ++i)
        if (i % width >= channels) maps[i] = maps[i - channels];
    }
    const int64_t pixels = call.spatial - offset < call.piece ? call.spatial - offset : call.piece;
    const int64_t at = (sample * call.spatial + offset) * channels;
    apply_pixels<T, kSilu, kResidual>(x + at, residual + (kResidual ? at : 0), y + at, pixels * channels, width, maps);
  }
}

template <class T>
void apply(const GroupNorm& call, int64_t begin, int64_t end) {
  if (call.silu)
    call.residual ? apply<T, true, true>(call, begin, end) : apply<T, true, false>(call, begin, end);
  else
    call.residual ? apply<T, false, true>(call, begin, end) : apply<T, false, false>(call, begin, end);
}

template <class T>
void run(const GroupNorm& call, int64_t begin, int64_t end) {
  const int64_t pieces = call.pieces, rows = call.rows_of_unit();
  switch (call.phase) {
    case Phase::kWhole:
      for (int64_t unit = begin; unit < end; ++unit) {
        reduce<T>(call, call.partial, unit * pieces, (unit + 1) * pieces);
        finish(call, unit, unit + 1);
        apply<T>(call, unit * rows, (unit + 1) * rows);
      }
      return;
    case Phase::kReduce: return reduce<T>(call, call.partial, begin, end);
    case Phase::kFinish: return finish(call, begin, end);
    default: return apply<T>(call, begin, end);
  }
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void group_norm_float32(const GroupNorm& call, int64_t begin, int64_t end) { run<Float32>(call, begin, end); }

void group_norm_bfloat16(const GroupNorm& call, int64_t begin, int64_t end) { run<BFloat16>(call, begin, end); }

void group_norm_float16(const GroupNorm& call, int64_t begin, int64_t end) { run<Float16>(call, begin, end); }

}  // namespace trilemma::cpu::TRILEMMA_ISA
