// The fused linear step for CUDA, the same bits as the CPU's.
//
// A thread reads all of its elements before it writes any, so out may be any of the inputs. It reads what most rows
// need before it computes: loads in flight are what fills the memory's bandwidth.

#include "launch.cuh"
#include "normal.cuh"
#include "trilemma/step_arithmetic.h"

namespace {

using trilemma::kMaxBranches;
using trilemma::kMaxLags;
using trilemma::LinearStep;
using trilemma::Row;
using trilemma::cuda::Replay;

constexpr int kEarlyLags = 2;

template <class T, int K, int V>
__device__ __forceinline__ void step_elements(const LinearStep& step, const Row& row, bool noisy, uint32_t index,
                                              trilemma::PhiloxKey key, int64_t sample, int64_t offset) {
  const int64_t batch = step.samples * step.elements;
  const int64_t at = sample * step.elements + offset;            // in a batch of predictions
  const int64_t state_at = sample * step.elements * K + offset;  // in a batch of states

  Packed<T, V> z[K], base[K], output[kMaxBranches], early[kEarlyLags];
#pragma unroll
  for (int k = 0; k < K; ++k) z[k].read(step.z, state_at + k * step.elements);
#pragma unroll
  for (int g = 0; g < kMaxBranches; ++g)
    if (g < step.branches) output[g].read(step.output, g * batch + at);
#pragma unroll
  for (int k = 0; k < K; ++k) {
    if (step.base == step.z)
      base[k] = z[k];
    else
      base[k].read(step.base, state_at + k * step.elements);
  }
#pragma unroll
  for (int j = 0; j < kEarlyLags; ++j)
    if (j < step.lags) early[j].read(step.history[j], at);

  float f[V] = {}, values[V];
#pragma unroll
  for (int g = 0; g < kMaxBranches; ++g) {
    if (g < step.branches) {
      output[g].unpack(values);
#pragma unroll
      for (int i = 0; i < V; ++i) f[i] = g == 0 ? row.w[0] * values[i] : f[i] + row.w[g] * values[i];
    }
  }

  float states[K][V], starts[K][V], next[K][V];
#pragma unroll
  for (int k = 0; k < K; ++k) z[k].unpack(states[k]), base[k].unpack(starts[k]);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    float state[K], start[K];
#pragma unroll
    for (int k = 0; k < K; ++k) state[k] = states[k][i], start[k] = starts[k][i];
    f[i] = trilemma::predict<K>(row, state, f[i]);
#pragma unroll
    for (int k = 0; k < K; ++k) next[k][i] = trilemma::begin_next<K>(row, k, start, f[i]);
  }

  const auto add = [&](const float* coefficients, int stride, const float(&numbers)[V]) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const float coefficient = coefficients[k * stride];
#pragma unroll
      for (int i = 0; i < V; ++i) next[k][i] = next[k][i] + coefficient * numbers[i];
    }
  };
  for (int n = 0; n < step.others; ++n) {
#pragma unroll
    for (int l = 0; l < K; ++l) {
      Packed<T, V> other;
      other.read(step.other[n], state_at + l * step.elements);
      other.unpack(values);
      add(row.d[n] + l, K, values);
    }
  }
#pragma unroll
  for (int j = 0; j < kMaxLags; ++j) {
    if (j < step.lags) {
      Packed<T, V> late;
      if (j >= kEarlyLags) late.read(step.history[j], at);
      (j < kEarlyLags ? early[j < kEarlyLags ? j : 0] : late).unpack(values);
      add(row.b[1 + j], 1, values);
    }
  }
  if (noisy) {
#pragma unroll
    for (int l = 0; l < K; ++l) {
      if (step.noise) {
        Packed<T, V> given;
        given.read(step.noise, state_at + l * step.elements);
        given.unpack(values);
      } else {
        const auto counter = trilemma::sample_counter(step.indices[sample], index, trilemma::kStepStream);
        normals_at(counter, key, l * step.elements + offset, values);
      }
      add(row.c + l, K, values);
    }
  }

  Packed<T, V> packed;
  bool finite = true;
  if (step.prediction) {
    packed.pack(f);
    packed.write(step.prediction, at);
  }
#pragma unroll
  for (int k = 0; k < K; ++k) {
    finite = packed.pack(next[k]) && finite;
    for (int g = 0; g < step.replicas; ++g) packed.write(step.out, g * batch * K + state_at + k * step.elements);
  }
  if (!finite && step.bad_row && step.bad_row[sample] < 0) step.bad_row[sample] = static_cast<int32_t>(index);
}

template <class T, int K, int V>
__global__ void __launch_bounds__(kThreads) linear_step_kernel(const LinearStep step, const Replay replay) {
  __shared__ Row row;
  const int64_t index = replay.row ? *replay.row : int64_t{step.step};
  if (threadIdx.x == 0)
    row = replay.table ? trilemma::read_row(replay.table + index * trilemma::row_width(K), K) : step.row;
  __syncthreads();
  const bool noisy = row.noisy(K);
  const auto key = trilemma::seed_key(replay.seed ? static_cast<uint64_t>(*replay.seed) : step.seed);
  const int64_t per_sample = step.elements / V;
  for (int64_t item = first_item(); item < step.samples * per_sample; item += item_stride()) {
    const Place place = divide(item, per_sample);
    step_elements<T, K, V>(step, row, noisy, static_cast<uint32_t>(index), key, place.quotient, place.remainder * V);
  }
}

template <class T, int K>
cudaError_t launch_components(const LinearStep& step, const Replay& replay, cudaStream_t stream) {
  bool wide = step.elements % kWide<T> == 0 &&
              aligned(step.out, step.z, step.base, step.output, step.prediction, step.noise);
  for (const void* history : step.history) wide = wide && aligned(history);
  for (const void* other : step.other) wide = wide && aligned(other);
  const int64_t elements = step.samples * step.elements;
  return wide ? launch_over(elements / kWide<T>, linear_step_kernel<T, K, kWide<T>>, stream, step, replay)
              : launch_over(elements, linear_step_kernel<T, K, 1>, stream, step, replay);
}

}  // namespace

cudaError_t trilemma::cuda::linear_step(const LinearStep& step, const Replay& replay, Storage storage,
                                        cudaStream_t stream) {
  return with_storage(storage, [&](auto type) {
    using T = decltype(type);
    return step.components == 1 ? launch_components<T, 1>(step, replay, stream)
                                : launch_components<T, 2>(step, replay, stream);
  });
}
