// Layer normalisation for CUDA. A block a token, which it reads three times: for the mean, for the squares about it, and to
// normalise; the second and third time from the nearest cache.

#include "layer_norm.cuh"

namespace {

template <class T, int V>
__global__ void __launch_bounds__(kThreads, 4) layer_norm_kernel(const LayerNorm call) {
  const int64_t tokens = call.samples * call.tokens, channels = call.channels;
  const float count = static_cast<float>(channels);
  for (int64_t token = blockIdx.x; token < tokens; token += gridDim.x) {
    float sum = 0;
    each_word<T, V>(call.x, token, channels, [&](int64_t, const Packed<T, V>& word) {
      float values[V];
      word.unpack(values);
#pragma unroll
      for (int i = 0; i < V; ++i) sum += values[i];
    });
    const float mean = block_sum(sum) / count;
    float squares = 0;
    each_word<T, V>(call.x, token, channels, [&](int64_t, const Packed<T, V>& word) {
      float values[V];
      word.unpack(values);
#pragma unroll
      for (int i = 0; i < V; ++i) squares += (values[i] - mean) * (values[i] - mean);
    });
    const float rstd = rsqrtf(block_sum(squares) / count + call.eps);
    if (threadIdx.x == 0) {
      call.mean[token] = mean;
      call.rstd[token] = rstd;
    }
    const int64_t sample = divide(token, call.tokens).quotient;
    each_word<T, V>(call.x, token, channels, [&](int64_t channel, Packed<T, V>& word) {
      float values[V];
      word.unpack(values);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const float gain = gain_of(call, sample, channel + i);
        const float u = (values[i] - mean) * rstd * read_map(call.weight, 0, channel + i, 1.0f) +
                        read_map(call.bias, 0, channel + i, 0.0f);
        values[i] = u * gain + read_map(call.shift, sample, channel + i, 0.0f);
      }
      word.pack(values);
      word.write(call.y, token * channels + channel);
    });
  }
}

template <class T, int V>
cudaError_t run(const LayerNorm& call, cudaStream_t stream) {
  const int64_t tokens = call.samples * call.tokens;
  const dim3 grid(static_cast<unsigned>(tokens < 0x7FFFFFFF ? tokens : 0x7FFFFFFF));
  return launch(layer_norm_kernel<T, V>, grid, threads_for(call.channels, V), stream, call);
}

}  // namespace

cudaError_t trilemma::cuda::layer_norm(const LayerNorm& call, Storage storage, cudaStream_t stream) {
  return with_storage(storage, [&](auto type) {
    using T = decltype(type);
    const bool wide = call.channels % kWide<T> == 0 && aligned(call.x, call.y);
    return wide ? run<T, kWide<T>>(call, stream) : run<T, 1>(call, stream);
  });
}
