// Gated linear units for CUDA, forward and backward. A thread a word of the result.

#include "launch.cuh"

namespace {

using trilemma::Glu;

// act(u) and its derivative.
struct Slope {
  float value, slope;
};

__device__ __forceinline__ Slope activated(bool silu, float u) {
  if (silu) {
    const float sigmoid = 1.0f / (1.0f + expf(-u));
    return {u * sigmoid, sigmoid * (1.0f + u * (1.0f - sigmoid))};
  }
  const float below = 0.5f * erfcf(-0.70710678f * u);
  return {u * below, below + u * 0.39894228f * expf(-0.5f * u * u)};
}

// The row of an item, and the column that its word begins in.
template <int V>
__device__ __forceinline__ Place word_of(const Glu& call, int64_t item) {
  const Place place = divide(item, call.channels / V);
  return {place.quotient, place.remainder * V};
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads) glu_kernel(const Glu call) {
  for (int64_t item = first_item(); item < call.rows * (call.channels / V); item += item_stride()) {
    const Place at = word_of<V>(call, item);
    Packed<T, V> a, g;
    a.read(call.x, at.quotient * call.x_stride + at.remainder);
    g.read(call.x, at.quotient * call.x_stride + call.channels + at.remainder);
    float values[V], gates[V];
    a.unpack(values);
    g.unpack(gates);
#pragma unroll
    for (int i = 0; i < V; ++i) values[i] *= activated(call.silu, gates[i]).value;
    a.pack(values);
    a.write(call.out, at.quotient * call.channels + at.remainder);
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads) glu_backward_kernel(const Glu call) {
  for (int64_t item = first_item(); item < call.rows * (call.channels / V); item += item_stride()) {
    const Place at = word_of<V>(call, item);
    Packed<T, V> a, g, dy;
    a.read(call.x, at.quotient * call.x_stride + at.remainder);
    g.read(call.x, at.quotient * call.x_stride + call.channels + at.remainder);
    dy.read(call.dy, at.quotient * call.channels + at.remainder);
    float values[V], gates[V], slopes[V];
    a.unpack(values);
    g.unpack(gates);
    dy.unpack(slopes);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const Slope act = activated(call.silu, gates[i]);
      gates[i] = slopes[i] * values[i] * act.slope;
      values[i] = slopes[i] * act.value;
    }
    a.pack(values);
    g.pack(gates);
    a.write(call.dx, at.quotient * 2 * call.channels + at.remainder);
    g.write(call.dx, at.quotient * 2 * call.channels + call.channels + at.remainder);
  }
}

template <class T>
bool wide(const Glu& call) {
  return call.channels % kWide<T> == 0 && call.x_stride % kWide<T> == 0 && aligned(call.x, call.out, call.dy, call.dx);
}

}  // namespace

cudaError_t trilemma::cuda::glu(const Glu& call, Storage storage, cudaStream_t stream) {
  return with_storage(storage, [&](auto type) {
    using T = decltype(type);
    if (wide<T>(call))
      return launch_over(call.rows * (call.channels / kWide<T>), glu_kernel<T, kWide<T>>, stream, call);
    return launch_over(call.rows * call.channels, glu_kernel<T, 1>, stream, call);
  });
}

cudaError_t trilemma::cuda::glu_backward(const Glu& call, Storage storage, cudaStream_t stream) {
  return with_storage(storage, [&](auto type) {
    using T = decltype(type);
    if (wide<T>(call))
      return launch_over(call.rows * (call.channels / kWide<T>), glu_backward_kernel<T, kWide<T>>, stream, call);
    return launch_over(call.rows * call.channels, glu_backward_kernel<T, 1>, stream, call);
  });
}
