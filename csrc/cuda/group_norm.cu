// Group normalisation for CUDA. A group goes to as many blocks as fill it: each finds the moments of its part, held in
// registers, by two passes; where a group has one block it is normalised at once, otherwise a second kernel merges the
// parts' moments and reads x again.

#include "group_norm.cuh"

namespace {

// Moments of a part: its mean, and the sum of squares about it.
struct Moments {
  float mean, squares;
};

template <class T, int V>
struct Part {
  Packed<T, V> words[kRounds<V>];
  int64_t begin, size, group_size;

  // Where this thread's words lie; calls run(round, element) for those that exist.
  template <class Run>
  __device__ __forceinline__ void each(const Run& run) const {
#pragma unroll
    for (int round = 0; round < kRounds<V>; ++round) {
      const int64_t element = begin + (int64_t{round} * blockDim.x + threadIdx.x) * V;
      if (element < group_size) run(round, element);
    }
  }
};

template <class T, int V>
__device__ __forceinline__ Moments moments_of(const Part<T, V>& part) {
  const int64_t left = part.group_size - part.begin;
  const float count = static_cast<float>(left < part.size ? left : part.size);
  float sum = 0;
  part.each([&](int round, int64_t) {
    float values[V];
    part.words[round].unpack(values);
#pragma unroll
    for (int i = 0; i < V; ++i) sum += values[i];
  });
  const float mean = block_sum(sum) / count;
  float squares = 0;
  part.each([&](int round, int64_t) {
    float values[V];
    part.words[round].unpack(values);
#pragma unroll
    for (int i = 0; i < V; ++i) squares += (values[i] - mean) * (values[i] - mean);
  });
  return {mean, block_sum(squares)};
}

// The moments of a group from those of its parts, all but the last of one size.
__device__ __forceinline__ Moments merge(const float* parts, int64_t count, int64_t size, int64_t group_size) {
  const auto elements = [&](int64_t part) {
    return static_cast<float>(part + 1 < count ? size : group_size - part * size);
  };
  float sum = 0;
  for (int64_t part = threadIdx.x; part < count; part += blockDim.x) sum += elements(part) * parts[2 * part];
  const float mean = block_sum(sum) / static_cast<float>(group_size);
  float squares = 0;
  for (int64_t part = threadIdx.x; part < count; part += blockDim.x) {
    const float away = parts[2 * part] - mean;
    squares += parts[2 * part + 1] + elements(part) * away * away;
  }
  return {mean, block_sum(squares)};
}

// What normalises a group's numbers; the thread that comes first in the group keeps it for the backward.
__device__ __forceinline__ float rstd_of(const GroupNorm& call, int64_t group, int64_t begin, int64_t group_size,
                                         Moments moments) {
  const float rstd = rsqrtf(moments.squares / static_cast<float>(group_size) + call.eps);
  if (begin == 0 && threadIdx.x == 0) {
    call.mean[group] = moments.mean;
    call.rstd[group] = rstd;
  }
  return rstd;
}

template <class T, int V>
__device__ __forceinline__ void apply(const GroupNorm& call, const Affines& affines, Located located, float mean,
                                      float rstd, Packed<T, V> word) {
  Packed<T, V> residual;
  if (call.residual) residual.read(call.residual, located.at);
  float values[V];
  word.unpack(values);
  each_lane<V>(call, affines, located.channel, [&](int i, const Affine& affine) {
    const float h = affine((values[i] - mean) * rstd);
    values[i] = call.silu ? silu(h) : h;
  });
  if (call.residual) {
    float added[V];
    residual.unpack(added);
#pragma unroll
    for (int i = 0; i < V; ++i) values[i] += added[i];
  }
  word.pack(values);
  word.write(call.y, located.at);
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, 2) group_moments_kernel(const GroupNorm call, const int64_t parts) {
  __shared__ Affines affines;
  const Place place = divide(blockIdx.x, parts);
  const int64_t group = place.quotient;
  Part<T, V> part;
  part.size = int64_t{blockDim.x} * V * kRounds<V>;
  part.begin = place.remainder * part.size;
  part.group_size = call.channels / call.groups * call.positions;
  part.each([&](int round, int64_t element) { part.words[round].read(call.x, locate(call, group, element).at); });
  const Moments moments = moments_of(part);
  if (parts > 1) {
    if (threadIdx.x > 0) return;
    call.scratch[2 * int64_t{blockIdx.x}] = moments.mean;
    call.scratch[2 * int64_t{blockIdx.x} + 1] = moments.squares;
    return;
  }
  fill_affines(call, group, affines);
  const float rstd = rstd_of(call, group, 0, part.group_size, moments);
  part.each([&](int round, int64_t element) {
    apply(call, affines, locate(call, group, element), moments.mean, rstd, part.words[round]);
  });
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, 3) group_apply_kernel(const GroupNorm call, const int64_t parts,
                                                               const int64_t size) {
  __shared__ Affines affines;
  const Place place = divide(blockIdx.x, parts);
  const int64_t group = place.quotient, begin = place.remainder * size;
  const int64_t group_size = call.channels / call.groups * call.positions;
  fill_affines(call, group, affines);
  const Moments moments = merge(call.scratch + 2 * group * parts, parts, size, group_size);
  const float rstd = rstd_of(call, group, begin, group_size, moments);
  const int64_t end = begin + size < group_size ? begin + size : group_size;
#pragma unroll 1
  for (int64_t element = begin + int64_t{threadIdx.x} * V; element < end; element += int64_t{blockDim.x} * V) {
    const Located located = locate(call, group, element);
    Packed<T, V> word;
    word.read(call.x, located.at);
    apply(call, affines, located, moments.mean, rstd, word);
  }
}

template <class T, int V>
cudaError_t run(const GroupNorm& call, cudaStream_t stream) {
  const Cut part = cut(call.channels / call.groups * call.positions, V, kRounds<V>);
  const int64_t blocks = call.samples * call.groups * part.count;
  if (blocks > 0x7FFFFFFF) return cudaErrorInvalidConfiguration;
  const dim3 grid(static_cast<unsigned>(blocks));
  const cudaError_t error = launch(group_moments_kernel<T, V>, grid, part.threads, stream, call, part.count);
  if (error || part.count == 1) return error;
  return launch(group_apply_kernel<T, V>, grid, part.threads, stream, call, part.count, part.size);
}

template <class T>
bool wide(const GroupNorm& call) {
  return wide_words<T>(call, call.x, call.y, call.residual);
}

}  // namespace

int64_t trilemma::cuda::group_norm_scratch(const GroupNorm& call, Storage) {
  // By the smallest parts, those of single elements; the rest of it is not touched.
  const Cut part = cut(call.channels / call.groups * call.positions, 1, kRounds<1>);
  return 2 * call.samples * call.groups * part.count;
}

cudaError_t trilemma::cuda::group_norm(const GroupNorm& call, Storage storage, cudaStream_t stream) {
  if (call.samples * call.channels * call.positions == 0) return cudaSuccess;
  return with_storage(storage, [&](auto type) {
    using T = decltype(type);
    return wide<T>(call) ? run<T, kWide<T>>(call, stream) : run<T, 1>(call, stream);
  });
}
