// Keyed standard normals for CUDA, the same bits as the CPU's.

#include "normal.cuh"

#include "launch.cuh"

namespace {

using trilemma::NormalFill;

template <class T, int V>
__global__ void __launch_bounds__(kThreads) normal_kernel(const NormalFill fill) {
  const int64_t per_sample = fill.elements / V;
  for (int64_t item = first_item(); item < fill.samples * per_sample; item += item_stride()) {
    const Place place = divide(item, per_sample);
    float values[V];
    normals_at(trilemma::sample_counter(fill.indices[place.quotient], fill.step, fill.stream),
               trilemma::seed_key(fill.seed), place.remainder * V, values);
    Packed<T, V> packed;
    packed.pack(values);
    packed.write(fill.out, item * V);
  }
}

}  // namespace

cudaError_t trilemma::cuda::normal(const NormalFill& fill, Storage storage, cudaStream_t stream) {
  return with_storage(storage, [&](auto type) {
    using T = decltype(type);
    const bool wide = fill.elements % kWide<T> == 0 && aligned(fill.out);
    return wide ? launch_over(fill.samples * fill.elements / kWide<T>, normal_kernel<T, kWide<T>>, stream, fill)
                : launch_over(fill.samples * fill.elements, normal_kernel<T, 1>, stream, fill);
  });
}
