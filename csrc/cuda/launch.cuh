// How kernels are put on a stream, and how their threads share the work.

#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "packed.cuh"
#include "trilemma/cuda.h"

namespace {

constexpr int kThreads = 256;

// Enough blocks for `items` threads, but no more than a few waves of the device: threads then stride over the rest.
inline cudaError_t grid_for(int64_t items, unsigned* blocks) {
  int device = 0, processors = 0;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device)) return error;
  const int64_t needed = (items + kThreads - 1) / kThreads, most = int64_t{16} * processors;
  *blocks = static_cast<unsigned>(needed < most ? needed : most);
  return cudaSuccess;
}

template <class... Parameters>
inline cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, unsigned threads, cudaStream_t stream,
                          const Parameters&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

// One thread an item, in a grid that strides.
template <class... Parameters>
inline cudaError_t launch_over(int64_t items, void (*kernel)(Parameters...), cudaStream_t stream,
                               const Parameters&... arguments) {
  if (items <= 0) return cudaSuccess;
  unsigned blocks = 0;
  if (const cudaError_t error = grid_for(items, &blocks)) return error;
  return launch(kernel, dim3(blocks), kThreads, stream, arguments...);
}

__device__ __forceinline__ int64_t first_item() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int64_t item_stride() { return int64_t{gridDim.x} * blockDim.x; }

// Quotient and remainder; in 32 bits where they do, which is several times as fast.
struct Place {
  int64_t quotient, remainder;
};

__device__ __forceinline__ Place divide(int64_t item, int64_t by) {
  if (((item | by) >> 32) == 0) {
    const uint32_t quotient = static_cast<uint32_t>(item) / static_cast<uint32_t>(by);
    return {quotient, static_cast<uint32_t>(item) - quotient * static_cast<uint32_t>(by)};
  }
  return {item / by, item % by};
}

// Calls `run` with a value of the element type.
template <class Run>
inline cudaError_t with_storage(trilemma::cuda::Storage storage, const Run& run) {
  switch (storage) {
    case trilemma::cpu::kFloat32: return run(Float32{});
    case trilemma::cpu::kBFloat16: return run(BFloat16{});
    case trilemma::cpu::kFloat16: return run(Float16{});
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace
