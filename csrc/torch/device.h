// The device that this library's operators run on: the same bindings are compiled for the CPU into _ops and, with
// TRILEMMA_CUDA, for CUDA into _ops_cuda. What differs between them is here.

#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "trilemma/cpu.h"

#ifdef TRILEMMA_CUDA
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "trilemma/cuda.h"
#endif

// The emulated library runs the CUDA kernels' sources on CPU tensors, for tests.
#ifdef TRILEMMA_EMULATED
#define TRILEMMA_LIBRARY trilemma_emulated
#else
#define TRILEMMA_LIBRARY trilemma
#endif

#ifdef TRILEMMA_CUDA

#define TRILEMMA_KERNEL(name) trilemma::cuda::name

#ifdef TRILEMMA_EMULATED

#define TRILEMMA_DEVICE CPU

inline bool is_here(const torch::stable::Tensor& tensor) { return tensor.is_cpu(); }

// The stream that the operators of a tensor's device are put on.
struct Here {
  explicit Here(const torch::stable::Tensor&) {}
  cudaStream_t stream = nullptr;
};

#else

#define TRILEMMA_DEVICE CUDA

inline bool is_here(const torch::stable::Tensor& tensor) { return tensor.is_cuda(); }

// The tensor's device, made the current one, and its current stream.
struct __attribute__((visibility("hidden"))) Here {
  explicit Here(const torch::stable::Tensor& tensor) : guard(tensor.get_device_index()) {
    void* current = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &current));
    stream = static_cast<cudaStream_t>(current);
  }
  torch::stable::accelerator::DeviceGuard guard;
  cudaStream_t stream = nullptr;
};

#endif

inline void check_launch(cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, "the kernel could not be launched: ", cudaGetErrorString(error));
}

// Puts a kernel on the current stream. A grid is cut by itself; the cut of the CPU is not looked at.
template <class Call>
inline void run_kernel(cudaError_t (*launch)(const Call&, trilemma::cuda::Storage, cudaStream_t), const Call& call,
                       const torch::stable::Tensor& like, int64_t, int64_t) {
  const Here here(like);
  check_launch(launch(call, storage(like.scalar_type()), here.stream));
}

#else

#define TRILEMMA_KERNEL(name) trilemma::cpu::best().name
#define TRILEMMA_DEVICE CPU

inline bool is_here(const torch::stable::Tensor& tensor) { return tensor.is_cpu(); }

// Runs blocks [0, count) of a kernel, at least `grain` of them a thread.
template <class Call>
inline void run_kernel(const trilemma::cpu::Kernel<Call> (&kernels)[trilemma::cpu::kStorages], const Call& call,
                       const torch::stable::Tensor& like, int64_t count, int64_t grain) {
  const auto kernel = kernels[storage(like.scalar_type())];
  torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) { kernel(call, begin, end); });
}

#endif

// Whether a tensor lies where the kernels run, on the device of another that does.
inline bool is_beside(const torch::stable::Tensor& tensor, const torch::stable::Tensor& like) {
  return is_here(tensor) && tensor.get_device_index() == like.get_device_index();
}
