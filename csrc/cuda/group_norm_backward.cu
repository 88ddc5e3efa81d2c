// The gradients of group normalisation for CUDA. With dh = dy act'(h) and xhat = (x - mean) rstd:
//
//   first   P = sum dh and Q = sum dh xhat over the positions of every channel of every sample, in parts;
//   then    dx = rstd (dh gain weight - mean of it - xhat (mean of dh gain weight xhat)), means over the group;
//   and     dshift = P, dscale = weight Q + bias P, dweight = sum_b gain Q, dbias = sum_b gain P.
//
// No atomic additions: the same bits at every run.

#include "group_norm.cuh"

namespace {

constexpr int kTile = 32;  // channels of a block's tile where channels lie last

struct ChannelSums {
  float dh, dh_xhat;
};

// dh and dh xhat of one element.
__device__ __forceinline__ ChannelSums slope(const GroupNorm& call, const Affine& affine, float mean, float rstd,
                                             float x, float dy) {
  const float xhat = (x - mean) * rstd;
  const float dh = call.silu ? dy * silu_slope(affine(xhat)) : dy;
  return {dh, dh * xhat};
}

__device__ __forceinline__ int64_t group_of(const GroupNorm& call, int64_t sample, int64_t channel) {
  return sample * call.groups + channel / (call.channels / call.groups);
}

// Where part `part` of a channel of a sample keeps its sums.
__device__ __forceinline__ float* sums_at(const GroupNorm& call, int64_t sample, int64_t channel, int64_t parts,
                                          int64_t part) {
  return call.scratch + 2 * ((sample * call.channels + channel) * parts + part);
}

// A block a part of a channel, whose positions lie one after the other.
template <class T, int V>
__global__ void __launch_bounds__(kThreads, 4) channel_sums_kernel(const GroupNorm call, const int64_t parts,
                                                                const int64_t size) {
  const Place place = divide(blockIdx.x, parts);
  const Place owner = divide(place.quotient, call.channels);  // sample, channel
  const int64_t group = group_of(call, owner.quotient, owner.remainder);
  const Affine affine = affine_of(call, owner.quotient, owner.remainder);
  const float mean = call.mean[group], rstd = call.rstd[group];
  const int64_t begin = place.remainder * size;
  const int64_t end = begin + size < call.positions ? begin + size : call.positions;
  ChannelSums sums{0, 0};
  for (int64_t i = begin + int64_t{threadIdx.x} * V; i < end; i += int64_t{blockDim.x} * V) {
    Packed<T, V> x, dy;
    x.read(call.x, place.quotient * call.positions + i);
    dy.read(call.dy, place.quotient * call.positions + i);
    float values[V], slopes[V];
    x.unpack(values);
    dy.unpack(slopes);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const ChannelSums one = slope(call, affine, mean, rstd, values[j], slopes[j]);
      sums.dh += one.dh;
      sums.dh_xhat += one.dh_xhat;
    }
  }
  sums = {block_sum(sums.dh), block_sum(sums.dh_xhat)};
  if (threadIdx.x == 0) {
    float* to = sums_at(call, owner.quotient, owner.remainder, parts, place.remainder);
    to[0] = sums.dh;
    to[1] = sums.dh_xhat;
  }
}

// A block a tile of channels and a part of the positions: neighbouring threads read neighbouring channels.
template <class T>
__global__ void __launch_bounds__(kThreads, 4) last_channel_sums_kernel(const GroupNorm call, const int64_t parts,
                                                                     const int64_t size) {
  __shared__ ChannelSums rows[kThreads / kTile][kTile];
  const int64_t tiles = (call.channels + kTile - 1) / kTile;
  const Place place = divide(blockIdx.x, parts);
  const Place owner = divide(place.quotient, tiles);  // sample, tile
  const int lane = static_cast<int>(threadIdx.x % kTile), row = static_cast<int>(threadIdx.x / kTile);
  const int64_t channel = owner.remainder * kTile + lane;
  ChannelSums sums{0, 0};
  if (channel < call.channels) {
    const int64_t group = group_of(call, owner.quotient, channel);
    const Affine affine = affine_of(call, owner.quotient, channel);
    const float mean = call.mean[group], rstd = call.rstd[group];
    const int64_t begin = place.remainder * size;
    const int64_t end = begin + size < call.positions ? begin + size : call.positions;
    for (int64_t i = begin + row; i < end; i += kThreads / kTile) {
      const int64_t at = (owner.quotient * call.positions + i) * call.channels + channel;
      const ChannelSums one = slope(call, affine, mean, rstd, T::load(static_cast<const T*>(call.x)[at]),
                                    T::load(static_cast<const T*>(call.dy)[at]));
      sums.dh += one.dh;
      sums.dh_xhat += one.dh_xhat;
    }
  }
  rows[row][lane] = sums;
  __syncthreads();
  if (row > 0 || channel >= call.channels) return;
  for (int other = 1; other < kThreads / kTile; ++other) {
    sums.dh += rows[other][lane].dh;
    sums.dh_xhat += rows[other][lane].dh_xhat;
  }
  float* to = sums_at(call, owner.quotient, channel, parts, place.remainder);
  to[0] = sums.dh;
  to[1] = sums.dh_xhat;
}

// A block a part of a group, of `size` elements.
template <class T, int V>
__global__ void __launch_bounds__(kThreads, 3) input_gradient_kernel(const GroupNorm call, const int64_t parts,
                                                                  const int64_t size, const int64_t channel_parts) {
  __shared__ Affines affines;
  const Place place = divide(blockIdx.x, parts);
  fill_affines(call, place.quotient, affines);
  const int64_t group = place.quotient, width = call.channels / call.groups;
  const int64_t sample = group / call.groups, first = group % call.groups * width;
  ChannelSums sums{0, 0};
  for (int64_t i = threadIdx.x; i < width * channel_parts; i += blockDim.x) {
    const Place of = divide(i, channel_parts);
    const Affine affine = affines[of.quotient];
    const float* part = sums_at(call, sample, first + of.quotient, channel_parts, of.remainder);
    sums.dh += part[0] * affine.gain * affine.weight;
    sums.dh_xhat += part[1] * affine.gain * affine.weight;
  }
  const float elements = static_cast<float>(width * call.positions);
  const float mean_slope = block_sum(sums.dh) / elements, mean_moment = block_sum(sums.dh_xhat) / elements;

  const float mean = call.mean[group], rstd = call.rstd[group];
  const int64_t begin = place.remainder * size;
  const int64_t end = begin + size < width * call.positions ? begin + size : width * call.positions;
#pragma unroll 1
  for (int64_t element = begin + int64_t{threadIdx.x} * V; element < end; element += int64_t{blockDim.x} * V) {
    const Located located = locate(call, group, element);
    Packed<T, V> x, dy;
    x.read(call.x, located.at);
    dy.read(call.dy, located.at);
    float values[V], slopes[V];
    x.unpack(values);
    dy.unpack(slopes);
    each_lane<V>(call, affines, located.channel, [&](int j, const Affine& affine) {
      const float xhat = (values[j] - mean) * rstd;
      const float dh = slope(call, affine, mean, rstd, values[j], slopes[j]).dh;
      values[j] = rstd * (dh * affine.gain * affine.weight - mean_slope - xhat * mean_moment);
    });
    Packed<T, V> packed;
    packed.pack(values);
    packed.write(call.dx, located.at);
  }
}

// A thread a channel.
__global__ void __launch_bounds__(kThreads) parameter_gradients_kernel(const GroupNorm call, const int64_t parts) {
  for (int64_t channel = first_item(); channel < call.channels; channel += item_stride()) {
    float dweight = 0, dbias = 0;
    for (int64_t sample = 0; sample < call.samples; ++sample) {
      const Affine affine = affine_of(call, sample, channel);
      ChannelSums sums{0, 0};
      for (int64_t part = 0; part < parts; ++part) {
        const float* from = sums_at(call, sample, channel, parts, part);
        sums.dh += from[0];
        sums.dh_xhat += from[1];
      }
      if (call.dshift.data) set_channel_number(call.dshift, sample, channel, sums.dh);
      if (call.dscale.data)
        set_channel_number(call.dscale, sample, channel, affine.weight * sums.dh_xhat + affine.bias * sums.dh);
      dweight += affine.gain * sums.dh_xhat;
      dbias += affine.gain * sums.dh;
    }
    if (call.dweight.data) set_channel_number(call.dweight, 0, channel, dweight);
    if (call.dbias.data) set_channel_number(call.dbias, 0, channel, dbias);
  }
}

// How the positions of a channel are cut. Channels last, a block's rows are fewer and as long as its tile is wide.
inline Cut channel_cut(const GroupNorm& call, int v) {
  if (!call.channels_last) return cut(call.positions, v, 16);
  const int64_t size = 256;
  return {kThreads, size, (call.positions + size - 1) / size};
}

template <class T, int V>
cudaError_t sum_channels(const GroupNorm& call, int64_t parts, cudaStream_t stream) {
  const Cut part = channel_cut(call, V);
  if (call.channels_last) {
    const int64_t blocks = call.samples * ((call.channels + kTile - 1) / kTile) * parts;
    if (blocks > 0x7FFFFFFF) return cudaErrorInvalidConfiguration;
    return launch(last_channel_sums_kernel<T>, dim3(static_cast<unsigned>(blocks)), kThreads, stream, call, parts,
                  part.size);
  }
  const int64_t blocks = call.samples * call.channels * parts;
  if (blocks > 0x7FFFFFFF) return cudaErrorInvalidConfiguration;
  return launch(channel_sums_kernel<T, V>, dim3(static_cast<unsigned>(blocks)), part.threads, stream, call, parts,
                part.size);
}

template <class T, int V>
cudaError_t run(const GroupNorm& call, cudaStream_t stream) {
  const int64_t channel_parts = channel_cut(call, V).count;
  if (const cudaError_t error = sum_channels<T, V>(call, channel_parts, stream)) return error;
  if (call.dx) {
    const Cut part = cut(call.channels / call.groups * call.positions, V, 16);
    const int64_t blocks = call.samples * call.groups * part.count;
    if (blocks > 0x7FFFFFFF) return cudaErrorInvalidConfiguration;
    const cudaError_t error = launch(input_gradient_kernel<T, V>, dim3(static_cast<unsigned>(blocks)), part.threads,
                                     stream, call, part.count, part.size, channel_parts);
    if (error) return error;
  }
  if (!call.dweight.data && !call.dbias.data && !call.dscale.data && !call.dshift.data) return cudaSuccess;
  return launch_over(call.channels, parameter_gradients_kernel, stream, call, channel_parts);
}

}  // namespace

int64_t trilemma::cuda::group_norm_backward_scratch(const GroupNorm& call, Storage) {
  return 2 * call.samples * call.channels * channel_cut(call, 1).count;  // by the smallest parts
}

cudaError_t trilemma::cuda::group_norm_backward(const GroupNorm& call, Storage storage, cudaStream_t stream) {
  if (call.samples * call.channels * call.positions == 0) return cudaSuccess;
  return with_storage(storage, [&](auto type) {
    using T = decltype(type);
    return wide_words<T>(call, call.x, call.dy, call.dx) ? run<T, kWide<T>>(call, stream) : run<T, 1>(call, stream);
  });
}
