// Tensors for results, with undefined content.

#pragma once

#include "large_results.h"

// One of these sizes, contiguous, as `like` in dtype and device.
inline torch::stable::Tensor new_result(const torch::stable::Tensor& like, const std::vector<int64_t>& sizes) {
#ifndef TRILEMMA_CUDA
  size_t bytes = like.element_size();
  for (const int64_t size : sizes) bytes *= size;
  if (bytes >= kLargeResult) {
    std::vector<int64_t> strides(sizes.size(), 1);
    for (size_t d = sizes.size() - 1; d > 0; --d) strides[d - 1] = strides[d] * sizes[d];
    return large_result(like, {sizes.data(), sizes.size()}, {strides.data(), strides.size()}, bytes);
  }
#endif
  return torch::stable::new_empty(like, {sizes.data(), sizes.size()});
}

// One like a dense tensor.
inline torch::stable::Tensor empty_result(const torch::stable::Tensor& like) {
#ifndef TRILEMMA_CUDA
  const size_t bytes = like.numel() * like.element_size();
  if (bytes >= kLargeResult) return large_result(like, like.sizes(), like.strides(), bytes);
#endif
  return torch::stable::empty_like(like);
}
