// Layer normalisation for the CPU, forward. CMake builds this file once an instruction set.
//
// The mean is kept as two floats, as in group_norm.cpp.

#include "channel_rows.h"
#include "group_moments.h"

namespace {

using trilemma::LayerNorm;

// x̂ = (x - mean) rstd - low.
struct Token {
  float mean, rstd, low;
};

template <class T, bool kAffine, bool kStream>
void apply(const T* x, T* y, int64_t count, const Token& token, const float* slope, const float* offset) {
  const Lanes mean = all(token.mean), rstd = all(token.rstd), low = all(token.low);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Lanes out = (load(x + i) - mean) * rstd - low;
    if constexpr (kAffine) out = out * load(slope + i) + load(offset + i);
    if constexpr (kStream && sizeof(T) == 4)
      stream(y + i, out);
    else
      store(y + i, out);
  }
  if (const int64_t left = count - i; left > 0) {
    Lanes out = (load(x + i, left) - mean) * rstd - low;
    if constexpr (kAffine)
      out = out * load(reinterpret_cast<const Float32*>(slope + i), left) +
            load(reinterpret_cast<const Float32*>(offset + i), left);
    store(y + i, out, left);
  }
}

template <class T, bool kAffine>
void run_tokens(const LayerNorm& call, int64_t begin, int64_t end) {
  const int64_t channels = call.channels;
  const T* x = static_cast<const T*>(call.x);
  T* y = static_cast<T*>(call.y);
  const Buffer buffer(kAffine ? 3 * channels : 1);
  float *slope = buffer.get(), *offset = slope + channels;
  const bool streams = sizeof(T) == 4 && call.stream && channels % kLanes == 0 &&
                       reinterpret_cast<uintptr_t>(y) % sizeof(Lanes) == 0;
  const auto run = streams ? apply<T, kAffine, true> : apply<T, kAffine, false>;
  int64_t known = -1;
  for (int64_t token = begin; token < end; ++token) {
    if (const int64_t sample = token / call.tokens; kAffine && sample != known) {
      // Without modulation all samples have the same maps.
      if (known < 0 || call.scale.data || call.shift.data)
        read_affine(call, sample, slope, offset, offset + channels);
      known = sample;
    }
    const Moments found = moments(x + token * channels, channels);
    const double squares = found.squares < 0 ? 0 : found.squares;
    const auto mean = static_cast<float>(found.mean);
    const auto rstd = static_cast<float>(1 / __builtin_sqrt(squares / static_cast<double>(channels) + call.eps));
    call.mean[token] = mean;
    call.rstd[token] = rstd;
    run(x + token * channels, y + token * channels, channels,
        {mean, rstd, static_cast<float>(found.mean - mean) * rstd}, slope, offset);
  }
  if (streams) fence();
}

template <class T>
void run(const LayerNorm& call, int64_t begin, int64_t end) {
  if (call.weight.data || call.bias.data || call.scale.data || call.shift.data)
    run_tokens<T, true>(call, begin, end);
  else
    run_tokens<T, false>(call, begin, end);
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void layer_norm_float32(const LayerNorm& call, int64_t begin, int64_t end) { run<Float32>(call, begin, end); }

void layer_norm_bfloat16(const LayerNorm& call, int64_t begin, int64_t end) { run<BFloat16>(call, begin, end); }

void layer_norm_float16(const LayerNorm& call, int64_t begin, int64_t end) { run<Float16>(call, begin, end); }

}  // namespace trilemma::cpu::TRILEMMA_ISA
