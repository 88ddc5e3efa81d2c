// The noised state and the training target for CUDA, the same bits as the CPU's.

#include "trilemma/perturb.h"

#include "launch.cuh"
#include "normal.cuh"

namespace {

using trilemma::Perturb;

template <class T, int V>
__global__ void __launch_bounds__(kThreads) perturb_kernel(const Perturb call) {
  const int64_t per_sample = call.elements / V;
  const auto key = trilemma::seed_key(call.seed);
  for (int64_t item = first_item(); item < call.samples * per_sample; item += item_stride()) {
    const Place place = divide(item, per_sample);
    Packed<T, V> packed;
    packed.read(call.x0, item * V);
    float noise[V], clean[V], z[V], target[V];
    if (call.noise) {
      Packed<T, V> given;
      given.read(call.noise, item * V);
      given.unpack(noise);
    } else {
      const auto counter =
          trilemma::sample_counter(call.indices[place.quotient], call.step, trilemma::kPerturbStream);
      normals_at(counter, key, place.remainder * V, noise);
    }
    packed.unpack(clean);

    const double* row = call.coefficients + 4 * place.quotient;
    const float alpha = static_cast<float>(row[0]), sigma = static_cast<float>(row[1]);
    const float a = static_cast<float>(row[2]), b = static_cast<float>(row[3]);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      z[i] = alpha * clean[i] + sigma * noise[i];
      target[i] = a * clean[i] + b * noise[i];
    }
    packed.pack(z);
    packed.write(call.z, item * V);
    packed.pack(target);
    packed.write(call.target, item * V);
  }
}

}  // namespace

cudaError_t trilemma::cuda::perturb(const Perturb& call, Storage storage, cudaStream_t stream) {
  return with_storage(storage, [&](auto type) {
    using T = decltype(type);
    const bool wide = call.elements % kWide<T> == 0 && aligned(call.z, call.target, call.x0, call.noise);
    return wide ? launch_over(call.samples * call.elements / kWide<T>, perturb_kernel<T, kWide<T>>, stream, call)
                : launch_over(call.samples * call.elements, perturb_kernel<T, 1>, stream, call);
  });
}
