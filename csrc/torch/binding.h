// What the operator bindings share: the stable ABI's headers, and questions about a tensor's shape and memory.

#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trilemma/cpu.h"

// The name that torch 2.11 has for it.
#ifndef STABLE_TORCH_ERROR_CODE_CHECK
#define STABLE_TORCH_ERROR_CODE_CHECK(call) TORCH_ERROR_CODE_CHECK(call)
#endif

// The element type that a native kernel takes for a tensor of this dtype; kStorages where there is none.
inline trilemma::cpu::Storage storage(torch::headeronly::ScalarType type) {
  switch (type) {
    case torch::headeronly::ScalarType::Float: return trilemma::cpu::kFloat32;
    case torch::headeronly::ScalarType::BFloat16: return trilemma::cpu::kBFloat16;
    case torch::headeronly::ScalarType::Half: return trilemma::cpu::kFloat16;
    default: return trilemma::cpu::kStorages;
  }
}

#include "device.h"

// Whether two batches hold samples of the same shape.
inline bool same_sample(const torch::stable::Tensor& x, const torch::stable::Tensor& y) {
  if (x.dim() != y.dim()) return false;
  for (int64_t d = 1; d < x.dim(); ++d)
    if (x.size(d) != y.size(d)) return false;
  return true;
}

// The bytes of a contiguous tensor.
struct Range {
  const char* begin = nullptr;
  int64_t size = 0;

  bool overlaps(const Range& other) const {
    return size && other.size && begin < other.begin + other.size && other.begin < begin + size;
  }
};

inline Range range(const torch::stable::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()),
          tensor.numel() * static_cast<int64_t>(tensor.element_size())};
}

// Whether `batch` overlaps `batches` of its own size without being one of them.
inline bool shifted(const Range& batch, const Range& batches, int64_t bytes) {
  return batch.overlaps(batches) && (batch.begin - batches.begin) % bytes != 0;
}
