// Sums over the threads of a block, whose number is a multiple of 32; every thread receives the sum.

#pragma once

#include <cuda_runtime.h>

namespace {

constexpr unsigned kWholeWarp = 0xFFFFFFFF;

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2) value += __shfl_xor_sync(kWholeWarp, value, distance);
  return value;
}

__device__ __forceinline__ float block_sum(float value) {
  __shared__ float of_warps[32];
  value = warp_sum(value);
  __syncthreads();  // a sum before this one has been read
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? of_warps[threadIdx.x % 32] : 0.0f);
}

}  // namespace
