// The gradients of layer normalisation for CUDA. With g = dy gain weight and xhat = (x - mean) rstd:
//
//   dx = rstd (g - m - xhat q), m and q the means of g and g xhat over the token's channels: a block a token;
//   P = sum dy and Q = sum dy xhat over the tokens of a piece: a block a piece and a tile of channels;
//   then dshift = P, dscale = weight Q + bias P, dweight = sum_b gain Q, dbias = sum_b gain P: a thread a channel.
//
// No atomic additions: the same bits at every run.

#include "layer_norm.cuh"

namespace {

constexpr int kTile = 32;  // channels of a block's tile

template <class T, int V>
__global__ void __launch_bounds__(kThreads, 4) input_gradient_kernel(const LayerNorm call) {
  const int64_t tokens = call.samples * call.tokens, channels = call.channels;
  const float count = static_cast<float>(channels);
  for (int64_t token = blockIdx.x; token < tokens; token += gridDim.x) {
    const int64_t sample = divide(token, call.tokens).quotient;
    const float mean = call.mean[token], rstd = call.rstd[token];
    const auto each = [&](const auto& run) {
      each_word<T, V>(call.x, token, channels, [&](int64_t channel, const Packed<T, V>& word) {
        Packed<T, V> dy;
        dy.read(call.dy, token * channels + channel);
        float values[V], slopes[V];
        word.unpack(values);
        dy.unpack(slopes);
#pragma unroll
        for (int i = 0; i < V; ++i) {
          values[i] = (values[i] - mean) * rstd;
          slopes[i] *= read_map(call.weight, 0, channel + i, 1.0f) * gain_of(call, sample, channel + i);
        }
        run(channel, values, slopes);
      });
    };
    float sum = 0, moment = 0;
    each([&](int64_t, const float(&hats)[V], const float(&slopes)[V]) {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        sum += slopes[i];
        moment += slopes[i] * hats[i];
      }
    });
    const float m = block_sum(sum) / count, q = block_sum(moment) / count;
    each([&](int64_t channel, const float(&hats)[V], const float(&slopes)[V]) {
      float values[V];
#pragma unroll
      for (int i = 0; i < V; ++i) values[i] = rstd * (slopes[i] - m - hats[i] * q);
      Packed<T, V> word;
      word.pack(values);
      word.write(call.dx, token * channels + channel);
    });
  }
}

// Neighbouring threads read neighbouring channels.
template <class T>
__global__ void __launch_bounds__(kThreads, 4) map_sums_kernel(const LayerNorm call, const int64_t tiles) {
  __shared__ float rows[2][kThreads / kTile][kTile];
  const Place place = divide(blockIdx.x, tiles);           // piece of all samples, tile
  const Place owner = divide(place.quotient, call.pieces);  // sample, piece
  const int lane = static_cast<int>(threadIdx.x % kTile), row = static_cast<int>(threadIdx.x / kTile);
  const int64_t channel = place.remainder * kTile + lane, begin = owner.remainder * call.piece;
  const int64_t end = begin + call.piece < call.tokens ? begin + call.piece : call.tokens;
  float p = 0, q = 0;
  if (channel < call.channels) {
    for (int64_t i = begin + row; i < end; i += kThreads / kTile) {
      const int64_t token = owner.quotient * call.tokens + i, at = token * call.channels + channel;
      const float xhat = (T::load(static_cast<const T*>(call.x)[at]) - call.mean[token]) * call.rstd[token];
      const float dy = T::load(static_cast<const T*>(call.dy)[at]);
      p += dy;
      q += dy * xhat;
    }
  }
  rows[0][row][lane] = p;
  rows[1][row][lane] = q;
  __syncthreads();
  if (row > 0 || channel >= call.channels) return;
  for (int other = 1; other < kThreads / kTile; ++other) {
    p += rows[0][other][lane];
    q += rows[1][other][lane];
  }
  float* sums = call.partial + 2 * place.quotient * call.channels + channel;
  sums[0] = p;
  sums[call.channels] = q;
}

__global__ void __launch_bounds__(kThreads) map_gradients_kernel(const LayerNorm call) {
  for (int64_t channel = first_item(); channel < call.channels; channel += item_stride()) {
    const float weight = read_map(call.weight, 0, channel, 1.0f), bias = read_map(call.bias, 0, channel, 0.0f);
    float dweight = 0, dbias = 0;
    for (int64_t sample = 0; sample < call.samples; ++sample) {
      float p = 0, q = 0;
      for (int64_t piece = sample * call.pieces; piece < (sample + 1) * call.pieces; ++piece) {
        const float* sums = call.partial + 2 * piece * call.channels + channel;
        p += sums[0];
        q += sums[call.channels];
      }
      const int64_t at = sample * call.channels + channel;
      if (call.dshift.data) write_gradient(call.dshift, at, p);
      if (call.dscale.data) write_gradient(call.dscale, at, weight * q + bias * p);
      const float gain = gain_of(call, sample, channel);
      dweight += gain * q;
      dbias += gain * p;
    }
    if (call.dweight.data) write_gradient(call.dweight, channel, dweight);
    if (call.dbias.data) write_gradient(call.dbias, channel, dbias);
  }
}

template <class T, int V>
cudaError_t differentiate_input(const LayerNorm& call, cudaStream_t stream) {
  const int64_t tokens = call.samples * call.tokens;
  const dim3 grid(static_cast<unsigned>(tokens < 0x7FFFFFFF ? tokens : 0x7FFFFFFF));
  return launch(input_gradient_kernel<T, V>, grid, threads_for(call.channels, V), stream, call);
}

template <class T>
cudaError_t run(const LayerNorm& call, cudaStream_t stream) {
  if (call.dx) {
    const bool wide = call.channels % kWide<T> == 0 && aligned(call.x, call.dy, call.dx);
    const cudaError_t error =
        wide ? differentiate_input<T, kWide<T>>(call, stream) : differentiate_input<T, 1>(call, stream);
    if (error) return error;
  }
  if (!call.partial) return cudaSuccess;
  const int64_t tiles = (call.channels + kTile - 1) / kTile, blocks = call.samples * call.pieces * tiles;
  if (blocks > 0x7FFFFFFF) return cudaErrorInvalidConfiguration;
  return launch(map_sums_kernel<T>, dim3(static_cast<unsigned>(blocks)), kThreads, stream, call, tiles);
}

}  // namespace

cudaError_t trilemma::cuda::layer_norm_backward(const LayerNorm& call, Storage storage, cudaStream_t stream) {
  if (call.adds_up) return launch_over(call.channels, map_gradients_kernel, stream, call);
  return with_storage(storage, [&](auto type) { return run<decltype(type)>(call, stream); });
}
