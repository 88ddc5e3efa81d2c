// Layer normalisation for the CPU, backward. CMake builds this file once an instruction set.
//
// With P = Σ dy and Q = Σ dy x̂ over the tokens of a sample, every gradient follows:
//
//   dshift = P,  dscale = weight Q + bias P,  dbias = Σ_b (1 + scale) P,  dweight = Σ_b (1 + scale) Q,
//   dx = rstd (g - m - x̂ q),  g = dy slope, m and q the means of g and g x̂ over the token's channels.
//
// The mean given is a float; the rest of it is found again from x.

#include <type_traits>

#include "channel_affine.h"
#include "channel_rows.h"

namespace {

using trilemma::LayerNorm;

// The channels of a token from i on, `left` of them, 0 beyond; kWhole: a register's worth.
template <bool kWhole, class T>
TRILEMMA_INLINE Lanes part(const T* from, int64_t left) {
  if constexpr (kWhole)
    return load(from);
  else
    return load(from, left);
}

template <bool kWhole>
TRILEMMA_INLINE Lanes part(const float* from, int64_t left) {
  return part<kWhole>(reinterpret_cast<const Float32*>(from), left);
}

template <bool kWhole, class T>
TRILEMMA_INLINE void put(T* to, Lanes value, int64_t left) {
  if constexpr (kWhole)
    store(to, value);
  else
    store(to, value, left);
}

// Calls run(whole, i, left) for the registers of a token.
template <class Run>
TRILEMMA_INLINE void each(int64_t count, const Run& run) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) run(std::true_type{}, i, int64_t{kLanes});
  if (i < count) run(std::false_type{}, i, count - i);
}

template <class T, bool kInput, bool kMaps>
void token(const T* x, const T* dy, T* dx, int64_t count, float given_mean, float given_rstd, const float* slope,
           float* p, float* q) {
  const Lanes mean = all(given_mean), rstd = all(given_rstd);
  Lanes rests{}, slopes{}, moments{};
  each(count, [&](auto whole, int64_t i, int64_t left) {
    constexpr bool kWhole = decltype(whole)::value;
    Lanes off = part<kWhole>(x + i, left) - mean;
    if constexpr (!kWhole) off = first(off, left);
    rests += off;
    if constexpr (kInput) {
      const Lanes g = part<kWhole>(dy + i, left) * part<kWhole>(slope + i, left);
      slopes += g;
      moments += g * off;
    }
  });
  const auto number = static_cast<double>(count);
  const double rest = sum(rests) / number, slope_sum = kInput ? sum(slopes) : 0;
  const Lanes low = all(static_cast<float>(rest * given_rstd));
  const Lanes m = all(static_cast<float>(slope_sum / number));
  const Lanes k = all(static_cast<float>(((kInput ? sum(moments) : 0) - rest * slope_sum) * given_rstd / number));
  each(count, [&](auto whole, int64_t i, int64_t left) {
    constexpr bool kWhole = decltype(whole)::value;
    const Lanes hat = (part<kWhole>(x + i, left) - mean) * rstd - low, d = part<kWhole>(dy + i, left);
    if constexpr (kInput) put<kWhole>(dx + i, rstd * (d * part<kWhole>(slope + i, left) - m - hat * k), left);
    if constexpr (kMaps) {
      auto *p_at = reinterpret_cast<Float32*>(p + i), *q_at = reinterpret_cast<Float32*>(q + i);
      put<kWhole>(p_at, part<kWhole>(p_at, left) + d, left);
      put<kWhole>(q_at, part<kWhole>(q_at, left) + d * hat, left);
    }
  });
}

template <class T, bool kInput, bool kMaps>
void run_pieces(const LayerNorm& call, int64_t begin, int64_t end) {
  const int64_t channels = call.channels;
  const T *x = static_cast<const T*>(call.x), *dy = static_cast<const T*>(call.dy);
  T* dx = static_cast<T*>(call.dx);
  const Buffer buffer(3 * channels);
  float* slope = buffer.get();
  int64_t known = -1;
  for (int64_t piece = begin; piece < end; ++piece) {
    const int64_t sample = piece / call.pieces, from = piece % call.pieces * call.piece;
    if (kInput && sample != known) {
      if (known < 0 || call.scale.data) read_affine(call, sample, slope, slope + channels, slope + 2 * channels);
      known = sample;
    }
    const int64_t to = call.tokens - from < call.piece ? call.tokens : from + call.piece;
    float *p = kMaps ? call.partial + 2 * piece * channels : nullptr, *q = kMaps ? p + channels : nullptr;
    if constexpr (kMaps)
      for (int64_t i = 0; i < 2 * channels; ++i) p[i] = 0.0f;
    for (int64_t t = sample * call.tokens + from; t < sample * call.tokens + to; ++t) {
      const int64_t at = t * channels;
      token<T, kInput, kMaps>(x + at, dy + at, dx + (kInput ? at : 0), channels, call.mean[t], call.rstd[t], slope, p,
                              q);
    }
  }
}

// A few channels at a time, so that the pieces are read along their rows.
void add_up(const LayerNorm& call, int64_t begin, int64_t end) {
  constexpr int64_t kFew = 64;
  for (int64_t first = begin; first < end; first += kFew) {
    const int64_t count = end - first < kFew ? end - first : kFew;
    double dweight[kFew] = {}, dbias[kFew] = {};
    for (int64_t sample = 0; sample < call.samples; ++sample) {
      double p[kFew] = {}, q[kFew] = {};
      for (int64_t piece = sample * call.pieces; piece < (sample + 1) * call.pieces; ++piece) {
        const float* sums = call.partial + 2 * piece * call.channels + first;
        for (int64_t i = 0; i < count; ++i) {
          p[i] += sums[i];
          q[i] += sums[call.channels + i];
        }
      }
      for (int64_t i = 0; i < count; ++i) {
        const int64_t channel = first + i, at = sample * call.channels + channel;
        const double gain = 1.0 + read(call.scale, sample, channel, 0.0f);
        dweight[i] += gain * q[i];
        dbias[i] += gain * p[i];
        if (call.dscale.data)
          write(call.dscale, at,
                read(call.weight, 0, channel, 1.0f) * q[i] + read(call.bias, 0, channel, 0.0f) * p[i]);
        if (call.dshift.data) write(call.dshift, at, p[i]);
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      if (call.dweight.data) write(call.dweight, first + i, dweight[i]);
      if (call.dbias.data) write(call.dbias, first + i, dbias[i]);
    }
  }
}

template <class T>
void run(const LayerNorm& call, int64_t begin, int64_t end) {
  if (call.adds_up) return add_up(call, begin, end);
  if (call.dx && call.partial) return run_pieces<T, true, true>(call, begin, end);
  if (call.dx) return run_pieces<T, true, false>(call, begin, end);
  if (call.partial) run_pieces<T, false, true>(call, begin, end);
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void layer_norm_backward_float32(const LayerNorm& call, int64_t begin, int64_t end) { run<Float32>(call, begin, end); }

void layer_norm_backward_bfloat16(const LayerNorm& call, int64_t begin, int64_t end) {
  run<BFloat16>(call, begin, end);
}

void layer_norm_backward_float16(const LayerNorm& call, int64_t begin, int64_t end) { run<Float16>(call, begin, end); }

}  // namespace trilemma::cpu::TRILEMMA_ISA
