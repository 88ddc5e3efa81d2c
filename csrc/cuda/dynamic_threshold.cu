// Dynamic thresholding for CUDA, the same bits as the CPU's. A block a sample.
//
// The quantile comes from a radix select on the bits of |x|, which order like the numbers: a histogram of the leading
// eleven bits says which bucket holds the wanted rank, the next two passes look only into that bucket. All counts are
// integers, so that the order in which threads add to them changes nothing.

#include "trilemma/dynamic_threshold.h"

#include "launch.cuh"
#include "reduce.cuh"

namespace {

using trilemma::DynamicThreshold;

constexpr int kSampleThreads = 1024;
constexpr int kBuckets = 2048;
constexpr uint32_t kInfinity = 0x7F800000;

struct Search {
  uint32_t prefix, rank, held, next;
};

// Calls `run` with the bits of every magnitude of a sample.
template <class T, int V, class Run>
__device__ __forceinline__ void each_magnitude(const T* x, int64_t count, const Run& run) {
  for (int64_t i = threadIdx.x * V; i < count; i += int64_t{kSampleThreads} * V) {
    Packed<T, V> packed;
    packed.read(x, i);
    float values[V];
    packed.unpack(values);
#pragma unroll
    for (int j = 0; j < V; ++j) run(__float_as_uint(values[j]) & 0x7FFFFFFF);
  }
}

// One warp finds the bucket that holds the rank: each lane counts a thirty-second of them.
__device__ __forceinline__ void find_bucket(const uint32_t* histogram, int width, int shift, Search* search) {
  const int share = width / 32, lane = static_cast<int>(threadIdx.x);
  uint32_t count = 0;
  for (int i = 0; i < share; ++i) count += histogram[lane * share + i];
  uint32_t up_to = count;
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint32_t below = __shfl_up_sync(kWholeWarp, up_to, distance);
    if (lane >= distance) up_to += below;
  }
  const uint32_t rank = search->rank;
  __syncwarp();  // all have read the rank before one changes it
  if (rank >= up_to || rank < up_to - count) return;
  uint32_t left = rank - (up_to - count);
  int bucket = lane * share;
  while (left >= histogram[bucket]) left -= histogram[bucket++];
  search->rank = left;
  search->held = histogram[bucket];
  search->prefix |= static_cast<uint32_t>(bucket) << shift;
}

// The rank-th smallest magnitude and the one after it, as bits; false where a magnitude is no number.
template <class T, int V>
__device__ bool select(const T* x, int64_t count, uint32_t rank, uint32_t* found, uint32_t* following) {
  __shared__ uint32_t histogram[kBuckets];
  __shared__ Search search;
  __syncthreads();  // the sample before this one has been read
  if (threadIdx.x == 0) search = {0, rank, 0, 0xFFFFFFFF};
  uint32_t mask = 0;
  int not_a_number = 0;
  for (int pass = 0; pass < 3; ++pass) {
    const int shift = 20 - 10 * pass, width = pass == 0 ? 2048 : 1024;
    for (int i = static_cast<int>(threadIdx.x); i < width; i += kSampleThreads) histogram[i] = 0;
    __syncthreads();
    const uint32_t prefix = search.prefix;
    each_magnitude<T, V>(x, count, [&](uint32_t bits) {
      not_a_number |= bits > kInfinity;
      if ((bits & mask) == prefix) atomicAdd(&histogram[bits >> shift & (width - 1)], 1u);
    });
    __syncthreads();
    if (threadIdx.x < 32) find_bucket(histogram, width, shift, &search);
    __syncthreads();
    mask |= static_cast<uint32_t>(width - 1) << shift;
  }
  if (__syncthreads_or(not_a_number)) return false;
  const uint32_t prefix = search.prefix;
  if (search.rank + 1 >= search.held) {
    uint32_t next = 0xFFFFFFFF;
    each_magnitude<T, V>(x, count, [&](uint32_t bits) {
      if (bits > prefix && bits < next) next = bits;
    });
    atomicMin(&search.next, next);
  }
  __syncthreads();
  *found = prefix;
  *following = search.next == 0xFFFFFFFF ? prefix : search.next;
  return true;
}

template <class T, int V>
__global__ void __launch_bounds__(kSampleThreads, 1) dynamic_threshold_kernel(const DynamicThreshold call) {
  const double place = call.quantile * static_cast<double>(call.elements - 1);
  const int64_t rank = static_cast<int64_t>(place);
  const double rest = place - static_cast<double>(rank);
  for (int64_t sample = blockIdx.x; sample < call.samples; sample += gridDim.x) {
    const T* x = static_cast<const T*>(call.x) + sample * call.elements;
    T* out = static_cast<T*>(call.out) + sample * call.elements;
    uint32_t low_bits = 0, high_bits = 0;
    double found = __longlong_as_double(0x7FF8000000000000);
    if (select<T, V>(x, call.elements, static_cast<uint32_t>(rank), &low_bits, &high_bits)) {
      const double first = __uint_as_float(low_bits), second = __uint_as_float(high_bits);
      found = rest == 0 || first == second ? first : first + rest * (second - first);
    }
    const double bound = found < call.floor ? call.floor : found;  // NaN stays
    const float high = static_cast<float>(bound), low = -high, scale = static_cast<float>(call.floor / bound);
    for (int64_t i = threadIdx.x * V; i < call.elements; i += int64_t{kSampleThreads} * V) {
      Packed<T, V> packed;
      packed.read(x, i);
      float values[V];
      packed.unpack(values);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        float value = values[j];
        value = value < low ? low : value;
        value = value > high ? high : value;
        values[j] = value * scale;
      }
      packed.pack(values);
      packed.write(out, i);
    }
  }
}

}  // namespace

cudaError_t trilemma::cuda::dynamic_threshold(const DynamicThreshold& call, Storage storage, cudaStream_t stream) {
  if (call.elements > 0xFFFFFFFF) return cudaErrorInvalidValue;
  const auto blocks = static_cast<unsigned>(call.samples < 65535 ? call.samples : 65535);
  return with_storage(storage, [&](auto type) {
    using T = decltype(type);
    const bool wide = call.elements % kWide<T> == 0 && aligned(call.out, call.x);
    return wide ? launch(dynamic_threshold_kernel<T, kWide<T>>, dim3(blocks), kSampleThreads, stream, call)
                : launch(dynamic_threshold_kernel<T, 1>, dim3(blocks), kSampleThreads, stream, call);
  });
}
