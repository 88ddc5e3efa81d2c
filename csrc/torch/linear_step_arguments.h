// The arguments of the linear step: whether they fit together, and the call that they make.

#pragma once

#include "binding.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using trilemma::LinearStep;

// K of a table of this width; 0 for a width that is no table's.
inline int components(const Tensor& table) {
  for (int k = 1; k <= trilemma::kMaxComponents; ++k)
    if (table.size(1) == trilemma::row_width(k)) return k;
  return 0;
}

inline trilemma::Row read_row(const Tensor& table, int64_t row) {
  return trilemma::read_row(static_cast<const double*>(table.const_data_ptr()) + row * table.stride(0),
                            components(table));
}

// The arguments of the operator, in the order of its schema.
struct Arguments {
  const Tensor &out, &z, &base;
  const std::optional<Tensor>& output;
  const Tensor& table;
  int64_t row;
  const std::optional<Tensor>& history;
  int64_t write_slot;
  const std::vector<int64_t>& read_slots;
  int64_t seed;
  const std::optional<Tensor>&indices, &noise, &bad_row;
  const std::vector<Tensor>& others;
};

// Whether the arguments fit together at all; what they should be is said by the reference's own check.
inline bool malformed(const Arguments& x) {
  if (x.z.dim() < 1 || x.table.dim() != 2 || !components(x.table)) return true;
  const int k = components(x.table);
  if (k > 1 && (x.z.dim() < 2 || x.z.size(1) % k)) return true;
  if (x.row < 0 || x.row >= x.table.size(0) || !x.table.is_cpu() || x.table.scalar_type() != ScalarType::Double)
    return true;
  const int64_t batch = x.z.size(0);
  const auto like_z = [&](const Tensor& tensor) { return same_sample(tensor, x.z) && tensor.size(0) == batch; };
  // Dim d of a prediction, which has one component's channels.
  const auto predicted = [&](int64_t d) { return x.z.size(d) / (d == 1 ? k : 1); };
  const auto replicated = [&](const Tensor& tensor, bool prediction) {
    if (tensor.dim() != x.z.dim()) return false;
    for (int64_t d = 1; d < x.z.dim(); ++d)
      if (tensor.size(d) != (prediction ? predicted(d) : x.z.size(d))) return false;
    if (batch == 0) return tensor.size(0) == 0;
    const int64_t copies = tensor.size(0) / batch;
    return tensor.size(0) % batch == 0 && copies >= 1 && copies <= trilemma::kMaxBranches;
  };
  const auto one_each = [&](const std::optional<Tensor>& tensor, ScalarType type) {
    return !tensor || (tensor->dim() == 1 && tensor->size(0) == batch && tensor->scalar_type() == type);
  };
  if (!like_z(x.base) || !replicated(x.out, false) || (x.output && !replicated(*x.output, true))) return true;
  if ((x.noise && !like_z(*x.noise)) || x.others.size() > trilemma::kMaxOthers) return true;
  for (const Tensor& other : x.others)
    if (!like_z(other)) return true;
  if (!one_each(x.indices, ScalarType::Long) || !one_each(x.bad_row, ScalarType::Int)) return true;

  int64_t slots = 0;
  if (x.history) {
    slots = x.history->dim() < 1 ? -1 : x.history->size(0);
    if (x.history->dim() != x.z.dim() + 1) return true;
    for (int64_t d = 0; d < x.z.dim(); ++d)
      if (x.history->size(d + 1) != predicted(d)) return true;
  }
  if (x.write_slot < -1 || x.write_slot >= slots || x.read_slots.size() > trilemma::kMaxLags) return true;
  for (const int64_t slot : x.read_slots)
    if (slot < 0 || slot >= slots) return true;
  return false;
}

inline void check(const Arguments& x) {
  STD_TORCH_CHECK(!malformed(x), "linear_step: the arguments do not fit together");
  STD_TORCH_CHECK(!read_row(x.table, x.row).noisy(components(x.table)) || x.noise || x.indices,
                  "linear_step: the row adds noise; give indices or noise");
}

// The call of arguments with elements.
inline LinearStep step_of(const Arguments& x) {
  LinearStep step;
  step.row = read_row(x.table, x.row);
  step.samples = x.z.size(0);
  step.components = components(x.table);
  step.elements = x.z.numel() / step.samples / step.components;
  step.replicas = static_cast<int>(x.out.size(0) / step.samples);
  step.branches = x.output ? static_cast<int>(x.output->size(0) / step.samples) : 0;
  step.lags = static_cast<int>(x.read_slots.size());
  step.others = static_cast<int>(x.others.size());
  step.out = x.out.mutable_data_ptr();
  step.z = x.z.const_data_ptr();
  step.base = x.base.const_data_ptr();
  if (x.output) step.output = x.output->const_data_ptr();
  for (int n = 0; n < step.others; ++n) step.other[n] = x.others[n].const_data_ptr();
  const int64_t bytes = step.samples * step.elements * static_cast<int64_t>(x.z.element_size());
  for (int j = 0; j < step.lags; ++j)
    step.history[j] = static_cast<const char*>(x.history->const_data_ptr()) + x.read_slots[j] * bytes;
  if (x.write_slot >= 0) step.prediction = static_cast<char*>(x.history->mutable_data_ptr()) + x.write_slot * bytes;
  if (x.noise) step.noise = x.noise->const_data_ptr();
  if (x.indices) step.indices = static_cast<const int64_t*>(x.indices->const_data_ptr());
  if (x.bad_row) step.bad_row = static_cast<int32_t*>(x.bad_row->mutable_data_ptr());
  step.seed = static_cast<uint64_t>(x.seed);
  step.step = static_cast<uint32_t>(x.row);

  // What no cache holds until the network reads it had better not push out what one does hold.
  constexpr int64_t kStreamedBytes = 16 << 20;
  step.streamed = (x.z.numel() + (x.output ? x.output->numel() : 0) + x.out.numel()) * static_cast<int64_t>(x.z.element_size()) >
                  kStreamedBytes;
  return step;
}

// A step whose row, table and seed lie on the device, for CUDA graphs: a replay reads them anew.
struct OnDevice {
  const Tensor &table, &row, &seed;
};

inline void check_replayed(const Tensor& table, const Tensor& row, const Tensor& seed, bool noise) {
  STD_TORCH_CHECK(table.dim() == 2 && components(table), "linear_step_replay: the arguments do not fit together");
  for (const Tensor* number : {&row, &seed})
    STD_TORCH_CHECK(number->numel() == 1 && number->scalar_type() == ScalarType::Long,
                    "linear_step_replay: row and seed are one int64 each");
  STD_TORCH_CHECK(noise, "linear_step_replay: the row may add noise; give indices or noise");
}

// A table of the same width on the host, which stands for the one that the host cannot read.
inline Tensor stand_in(const Tensor& table) {
  const std::array<int64_t, 2> sizes{1, table.size(1)};
  return torch::stable::full({sizes.data(), sizes.size()}, 0.0, ScalarType::Double, std::nullopt,
                             torch::stable::Device(torch::headeronly::DeviceType::CPU));
}

}  // namespace
