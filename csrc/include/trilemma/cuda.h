// The CUDA kernels as the operators launch them. Each puts its work on a stream and returns at once; none allocates,
// none waits.

#pragma once

#include <cuda_runtime.h>

#include "trilemma/cpu.h"

namespace trilemma::cuda {

using cpu::Storage;

// Where a captured step finds, at each replay, what a call would otherwise fix. Null pointers: the call's own.
struct Replay {
  const float* table = nullptr;   // [rows, row_width] on the device
  const int64_t* row = nullptr;   // of the table, and the step of the noise
  const int64_t* seed = nullptr;
};

cudaError_t linear_step(const LinearStep&, const Replay&, Storage, cudaStream_t);

inline cudaError_t linear_step(const LinearStep& call, Storage storage, cudaStream_t stream) {
  return linear_step(call, Replay{}, storage, stream);
}

cudaError_t normal(const NormalFill&, Storage, cudaStream_t);
cudaError_t perturb(const Perturb&, Storage, cudaStream_t);
cudaError_t attention(const Attention&, Storage, cudaStream_t);
cudaError_t layer_norm(const LayerNorm&, Storage, cudaStream_t);
cudaError_t layer_norm_backward(const LayerNorm&, Storage, cudaStream_t);
cudaError_t glu(const Glu&, Storage, cudaStream_t);
cudaError_t glu_backward(const Glu&, Storage, cudaStream_t);
cudaError_t dynamic_threshold(const DynamicThreshold&, Storage, cudaStream_t);

}  // namespace trilemma::cuda
