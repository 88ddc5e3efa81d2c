// Group normalisation for the CPU, backward. CMake builds this file once an instruction set.
//
// With du = dy act'(u) and, a channel of a sample, P = Σ du and Q = Σ du x̂, every gradient follows:
//
//   dshift = P,  dscale = weight Q + bias P,  dbias = Σ_b (1 + scale) P,  dweight = Σ_b (1 + scale) Q,
//   dx = rstd (du slope - m - x̂ q),  m and q the group's means of slope P and slope Q.
//
// u is computed again from x. The mean given is a float; where it is large its rounding would show in x̂, and the rest
// of it is found again from x.

#include "group_moments.h"

namespace {

using trilemma::Phase;

void recentre_group(const GroupNorm& call, int64_t unit, int64_t group, const double* partial) {
  const int64_t at = call.channels_last ? unit * call.groups + group : unit;
  call.low[at] = partial ? static_cast<float>(merged(call, partial, unit, group).mean - call.mean[at]) : 0.0f;
}

template <class T>
void recentre(const GroupNorm& call, int64_t begin, int64_t end) {
  const int64_t groups = call.channels_last ? call.groups : 1, pieces = call.pieces;
  double* partial = call.partial + call.channel_partials();
  for (int64_t unit = begin; unit < end; ++unit) {
    bool large = false;
    for (int64_t g = unit * groups; g < (unit + 1) * groups; ++g)
      large |= __builtin_fabsf(call.mean[g] * call.rstd[g]) > 4.0f;
    if (large) reduce<T>(call, partial, unit * pieces, (unit + 1) * pieces);
    for (int64_t g = 0; g < groups; ++g) recentre_group(call, unit, g, large ? partial : nullptr);
  }
}

// x̂ = (x - mean) rstd + low, u = slope x̂ + offset.
template <class V>
struct Known {
  V mean, rstd, low, slope, offset;
};

Known<float> known(const GroupNorm& call, const Place& at) {
  const Affine map = affine(call, at);
  const float rstd = call.rstd[at.group];
  return {call.mean[at.group], rstd, -call.low[at.group] * rstd, map.slope, map.offset};
}

template <bool kSilu>
TRILEMMA_INLINE Lanes du(Lanes dy, Lanes normal, Lanes slope, Lanes offset) {
  if constexpr (kSilu)
    return dy * silu_slope(normal * slope + offset);
  else
    return dy;
}

template <class T, bool kSilu, bool kKeep>
void sum_row(const T* x, const T* dy, T* kept, int64_t count, const Known<float>& row, double* sums) {
  const Known<Lanes> k{all(row.mean), all(row.rstd), all(row.low), all(row.slope), all(row.offset)};
  sums[0] = sums[1] = 0;
  for (int64_t begin = 0; begin < count; begin += 2048) {
    const int64_t end = count - begin < 2048 ? count : begin + 2048;
    Lanes p{}, q{};
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      const Lanes normal = (load(x + i) - k.mean) * k.rstd + k.low;
      const Lanes d = du<kSilu>(load(dy + i), normal, k.slope, k.offset);
      if constexpr (kKeep) store(kept + i, d);
      p += d;
      q += d * normal;
    }
    if (const int64_t left = end - i; left > 0) {
      const Lanes normal = (load(x + i, left) - k.mean) * k.rstd + k.low;
      const Lanes d = du<kSilu>(load(dy + i, left), normal, k.slope, k.offset);
      if constexpr (kKeep) store(kept + i, d, left);
      p += first(d, left);
      q += first(d * normal, left);
    }
    sums[0] += sum(p);
    sums[1] += sum(q);
  }
}

// `known` of the channels as rows of `width` floats: mean, rstd, low, slope, offset.
struct KnownRows {
  const float* at;
  int64_t width;

  TRILEMMA_INLINE Known<Lanes> operator()(int64_t i) const {
    const float* p = at + i;
    return {load(p), load(p + width), load(p + 2 * width), load(p + 3 * width), load(p + 4 * width)};
  }
  TRILEMMA_INLINE Known<Lanes> operator()(int64_t i, int64_t left) const {
    const auto part = [&](int64_t row) { return load(reinterpret_cast<const Float32*>(at + row * width + i), left); };
    return {part(0), part(1), part(2), part(3), part(4)};
  }
};

// Adds a run of pixels to rows of `width` sums of du and, `width` further on, of du x̂.
template <class T, bool kSilu, bool kKeep>
void sum_pixels(const T* x, const T* dy, T* kept, int64_t count, const KnownRows& known, float* sums) {
  const int64_t width = known.width;
  for (int64_t row = 0; row < count; row += width) {
    const int64_t here = count - row < width ? count - row : width;
    int64_t i = 0;
    for (; i + kLanes <= here; i += kLanes) {
      const Known<Lanes> k = known(i);
      const Lanes normal = (load(x + row + i) - k.mean) * k.rstd + k.low;
      const Lanes d = du<kSilu>(load(dy + row + i), normal, k.slope, k.offset);
      if constexpr (kKeep) store(kept + row + i, d);
      store(sums + i, load(sums + i) + d);
      store(sums + width + i, load(sums + width + i) + d * normal);
    }
    if (const int64_t left = here - i; left > 0) {
      const Known<Lanes> k = known(i, left);
      const Lanes normal = (load(x + row + i, left) - k.mean) * k.rstd + k.low;
      const Lanes d = du<kSilu>(load(dy + row + i, left), normal, k.slope, k.offset);
      if constexpr (kKeep) store(kept + row + i, d, left);
      float p[kLanes], q[kLanes];
      store(p, d);
      store(q, d * normal);
      for (int64_t j = 0; j < left; ++j) {
        sums[i + j] += p[j];
        sums[width + i + j] += q[j];
      }
    }
  }
}

// Fills rows of `width` floats whose first `channels` are known.
void repeat(int64_t channels, int64_t width, int64_t count, float* rows) {
  for (int64_t row = 0; row < count; ++row)
    for (int64_t i = channels; i < width; ++i) rows[row * width + i] = rows[row * width + i - channels];
}

void fill_known(const GroupNorm& call, int64_t sample, int64_t width, float* rows) {
  Place place(call, sample * call.channels);
  for (int64_t i = 0; i < call.channels; ++i, place.next()) {
    const Known<float> k = known(call, place);
    rows[i] = k.mean;
    rows[width + i] = k.rstd;
    rows[2 * width + i] = k.low;
    rows[3 * width + i] = k.slope;
    rows[4 * width + i] = k.offset;
  }
  repeat(call.channels, width, 5, rows);
}

// kKeep: du stays in dx.
template <class T, bool kSilu, bool kKeep>
void sum_channels(const GroupNorm& call, int64_t begin, int64_t end) {
  const T *x = static_cast<const T*>(call.x), *dy = static_cast<const T*>(call.dy);
  T* kept = static_cast<T*>(call.dx);
  const int64_t channels = call.channels;
  if (!call.channels_last) {
    Place place(call, begin);
    for (int64_t row = begin; row < end; ++row, place.next()) {
      const int64_t at = row * call.spatial;
      sum_row<T, kSilu, kKeep>(x + at, dy + at, kept + (kKeep ? at : 0), call.spatial, known(call, place),
                               call.channel_sums + 2 * row);
    }
    return;
  }
  const int64_t width = row_pixels(channels) * channels, pieces = call.pieces;
  const Buffer buffer(7 * width);
  float* sums = buffer.get() + 5 * width;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t sample = row / pieces, offset = row % pieces * call.piece;
    if (row == begin || offset == 0) fill_known(call, sample, width, buffer.get());
    for (int64_t i = 0; i < 2 * width; ++i) sums[i] = 0.0f;
    const int64_t pixels = call.spatial - offset < call.piece ? call.spatial - offset : call.piece;
    const int64_t at = (sample * call.spatial + offset) * channels;
    sum_pixels<T, kSilu, kKeep>(x + at, dy + at, kept + (kKeep ? at : 0), pixels * channels, {buffer.get(), width}, sums);
    double* out = call.partial + 2 * row * channels;
    for (int64_t c = 0; c < channels; ++c) {
      double p = 0, q = 0;
      for (int64_t i = c; i < width; i += channels) {
        p += sums[i];
        q += sums[width + i];
      }
      out[2 * c] = p;
      out[2 * c + 1] = q;
    }
  }
}

// The sums of a sample's pieces together, and the means of its groups.
void finish(const GroupNorm& call, int64_t begin, int64_t end) {
  const int64_t channels = call.channels, per_group = call.per_group, pieces = call.pieces;
  const int64_t groups = call.channels_last ? call.groups : 1;
  const double count = static_cast<double>(per_group * call.spatial);
  for (int64_t unit = begin; unit < end; ++unit) {
    if (call.channels_last) {
      double* sums = call.channel_sums + 2 * unit * channels;
      const double* partial = call.partial + 2 * unit * pieces * channels;
      for (int64_t i = 0; i < 2 * channels; ++i) sums[i] = 0;
      for (int64_t piece = 0; piece < pieces; ++piece, partial += 2 * channels)
        for (int64_t i = 0; i < 2 * channels; ++i) sums[i] += partial[i];
    }
    Place place(call, unit * groups * per_group);
    for (int64_t g = unit * groups; g < (unit + 1) * groups; ++g) {
      const double* sums = call.channel_sums + 2 * g * per_group;
      double m = 0, q = 0;
      for (int64_t c = 0; c < per_group; ++c, place.next()) {
        const float slope = affine(call, place).slope;
        m += slope * sums[2 * c];
        q += slope * sums[2 * c + 1];
      }
      call.group_means[2 * g] = static_cast<float>(m / count);
      call.group_means[2 * g + 1] = static_cast<float>(q / count);
    }
  }
}

// dx = du first + x̂ second + third.
template <class V>
struct Slopes {
  V first, second, third;
};

Slopes<float> slopes(const GroupNorm& call, const Place& at) {
  const float rstd = call.rstd[at.group];
  return {affine(call, at).slope * rstd, -call.group_means[2 * at.group + 1] * rstd,
          -call.group_means[2 * at.group] * rstd};
}

template <bool kSilu>
TRILEMMA_INLINE Lanes input_gradient(Lanes x, Lanes dy, const Known<Lanes>& k, const Slopes<Lanes>& s) {
  const Lanes normal = (x - k.mean) * k.rstd + k.low;
  return du<kSilu>(dy, normal, k.slope, k.offset) * s.first + (normal * s.second + s.third);
}

template <class T, bool kSilu>
void apply_row(const T* x, const T* dy, T* dx, int64_t count, const Known<float>& row, const Slopes<float>& to) {
  const Known<Lanes> k{all(row.mean), all(row.rstd), all(row.low), all(row.slope), all(row.offset)};
  const Slopes<Lanes> s{all(to.first), all(to.second), all(to.third)};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(dx + i, input_gradient<kSilu>(load(x + i), load(dy + i), k, s));
  if (const int64_t left = count - i; left > 0)
    store(dx + i, input_gradient<kSilu>(load(x + i, left), load(dy + i, left), k, s), left);
}

template <class T, bool kSilu>
void apply_pixels(const T* x, const T* dy, T* dx, int64_t count, const KnownRows& known, const float* to) {
  const int64_t width = known.width;
  const auto part = [](const float* p, int64_t left) { return load(reinterpret_cast<const Float32*>(p), left); };
  for (int64_t row = 0; row < count; row += width) {
    const int64_t here = count - row < width ? count - row : width;
    int64_t i = 0;
    for (; i + kLanes <= here; i += kLanes) {
      const Slopes<Lanes> s{load(to + i), load(to + width + i), load(to + 2 * width + i)};
      store(dx + row + i, input_gradient<kSilu>(load(x + row + i), load(dy + row + i), known(i), s));
    }
    if (const int64_t left = here - i; left > 0) {
      const Slopes<Lanes> s{part(to + i, left), part(to + width + i, left), part(to + 2 * width + i, left)};
      store(dx + row + i,
            input_gradient<kSilu>(load(x + row + i, left), load(dy + row + i, left), known(i, left), s), left);
    }
  }
}

template <class T, bool kSilu>
void apply(const GroupNorm& call, int64_t begin, int64_t end) {
  const T *x = static_cast<const T*>(call.x), *dy = static_cast<const T*>(call.dy);
  T* dx = static_cast<T*>(call.dx);
  const int64_t channels = call.channels;
  if (!call.channels_last) {
    Place place(call, begin);
    for (int64_t row = begin; row < end; ++row, place.next()) {
      const int64_t at = row * call.spatial;
      apply_row<T, kSilu>(x + at, dy + at, dx + at, call.spatial, known(call, place), slopes(call, place));
    }
    return;
  }
  const int64_t width = row_pixels(channels) * channels, pieces = call.pieces;
  const Buffer buffer(8 * width);
  float* to = buffer.get() + 5 * width;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t sample = row / pieces, offset = row % pieces * call.piece;
    if (row == begin || offset == 0) {
      fill_known(call, sample, width, buffer.get());
      Place place(call, sample * channels);
      for (int64_t i = 0; i < channels; ++i, place.next()) {
        const Slopes<float> s = slopes(call, place);
        to[i] = s.first;
        to[width + i] = s.second;
        to[2 * width + i] = s.third;
      }
      repeat(channels, width, 3, to);
    }
    const int64_t pixels = call.spatial - offset < call.piece ? call.spatial - offset : call.piece;
    const int64_t at = (sample * call.spatial + offset) * channels;
    apply_pixels<T, kSilu>(x + at, dy + at, dx + at, pixels * channels, {buffer.get(), width}, to);
  }
}

void gradients(const GroupNorm& call, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; ++c) {
    const double weight = read(call.weight, 0, c, 1.0f), bias = read(call.bias, 0, c, 0.0f);
    double dweight = 0, dbias = 0;
    for (int64_t b = 0; b < call.samples; ++b) {
      const double scale = 1.0 + read(call.scale, b, c, 0.0f);
      const int64_t at = b * call.channels + c;
      const double p = call.channel_sums[2 * at], q = call.channel_sums[2 * at + 1];
      dweight += scale * q;
      dbias += scale * p;
      if (call.dscale.data) write(call.dscale, at, weight * q + bias * p);
      if (call.dshift.data) write(call.dshift, at, p);
    }
    if (call.dweight.data) write(call.dweight, c, dweight);
    if (call.dbias.data) write(call.dbias, c, dbias);
  }
}

template <class T>
constexpr bool kExact = false;
template <>
constexpr bool kExact<Float32> = true;

// Whole units. du need not be made twice where dx can hold it, in its own precision and in the second cache.
template <class T, bool kSilu>
void run_units(const GroupNorm& call, int64_t begin, int64_t end) {
  const int64_t rows = call.rows_of_unit();
  const bool keep = kSilu && kExact<T> && call.dx;
  GroupNorm second = call;
  if (keep) second.dy = call.dx;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t from = unit * rows, to = from + rows;
    recentre<T>(call, unit, unit + 1);
    keep ? sum_channels<T, kSilu, kSilu && kExact<T>>(call, from, to) : sum_channels<T, kSilu, false>(call, from, to);
    finish(call, unit, unit + 1);
    if (keep)
      apply<T, false>(second, from, to);
    else if (call.dx)
      apply<T, kSilu>(call, from, to);
  }
}

template <class T, bool kSilu>
void run(const GroupNorm& call, int64_t begin, int64_t end) {
  switch (call.phase) {
    case Phase::kWhole: return run_units<T, kSilu>(call, begin, end);
    case Phase::kRecentre: return recentre<T>(call, begin, end);
    case Phase::kReduce: return sum_channels<T, kSilu, false>(call, begin, end);
    case Phase::kFinish: return finish(call, begin, end);
    case Phase::kApply: return apply<T, kSilu>(call, begin, end);
    case Phase::kGradients: return gradients(call, begin, end);
  }
}

template <class T>
void run(const GroupNorm& call, int64_t begin, int64_t end) {
  call.silu ? run<T, true>(call, begin, end) : run<T, false>(call, begin, end);
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void group_norm_backward_float32(const GroupNorm& call, int64_t begin, int64_t end) {
  run<Float32>(call, begin, end);
}

void group_norm_backward_bfloat16(const GroupNorm& call, int64_t begin, int64_t end) {
  run<BFloat16>(call, begin, end);
}

void group_norm_backward_float16(const GroupNorm& call, int64_t begin, int64_t end) {
  run<Float16>(call, begin, end);
}

}  // namespace trilemma::cpu::TRILEMMA_ISA
