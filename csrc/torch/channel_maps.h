// The maps of a normalisation's channels as its kernels take them.

#pragma once

#include <optional>

#include "binding.h"

// A map [channels] or [samples, channels], of any strides; or none.
inline trilemma::PerChannel per_channel(const std::optional<torch::stable::Tensor>& tensor) {
  if (!tensor) return {};
  const bool of_sample = tensor->dim() == 2;
  return {tensor->const_data_ptr(), storage(tensor->scalar_type()), of_sample ? tensor->stride(0) : 0,
          tensor->stride(of_sample ? 1 : 0)};
}
