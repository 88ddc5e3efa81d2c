// Whether the native kernel takes a linear step, whose arguments fit together, or the reference must.

#pragma once

#include "linear_step_arguments.h"

namespace {

// Why the native kernel cannot take well-formed arguments; "" where it can.
inline const char* why_not(const Arguments& x) {
  const ScalarType type = x.z.scalar_type();
  if (storage(type) == trilemma::cpu::kStorages) return "z is not float32, bfloat16 or float16";
  const auto fits = [&](const Tensor& tensor) { return is_beside(tensor, x.z) && tensor.scalar_type() == type; };
  for (const Tensor* tensor : {&x.out, &x.z, &x.base})
    if (!fits(*tensor)) return "the tensors differ in dtype or device";
  for (const std::optional<Tensor>* tensor : {&x.output, &x.history, &x.noise})
    if (*tensor && !fits(**tensor)) return "the tensors differ in dtype or device";
  for (const Tensor& other : x.others)
    if (!fits(other)) return "the tensors differ in dtype or device";
  for (const std::optional<Tensor>* tensor : {&x.indices, &x.bad_row})
    if (*tensor && !is_beside(**tensor, x.z)) return "the tensors differ in dtype or device";

  if (x.table.stride(1) != 1) return "a row of the table is not contiguous";
  for (const Tensor* tensor : {&x.out, &x.z, &x.base})
    if (!tensor->is_contiguous()) return "a tensor is not contiguous";
  for (const std::optional<Tensor>* tensor : {&x.output, &x.history, &x.noise, &x.indices, &x.bad_row})
    if (*tensor && !(*tensor)->is_contiguous()) return "a tensor is not contiguous";
  for (const Tensor& other : x.others)
    if (!other.is_contiguous()) return "a tensor is not contiguous";

  // The kernel reads a block of everything before it writes that block of out and of the written slot.
  const int64_t bytes = x.z.numel() * static_cast<int64_t>(x.z.element_size());
  const Range out = range(x.out);
  const Range history = x.history ? range(*x.history) : Range{};
  const int64_t slot = bytes / components(x.table);
  const Range written = x.write_slot < 0 ? Range{} : Range{history.begin + x.write_slot * slot, slot};
  const bool coupled = components(x.table) > 1;  // then states and predictions lie differently
  const auto clashes = [&](const Tensor& tensor) {
    const Range input = range(tensor);
    return shifted(input, out, bytes) || (coupled ? input.overlaps(written) : shifted(input, written, bytes));
  };
  bool clash = clashes(x.z) || clashes(x.base) || (x.noise && clashes(*x.noise));
  for (const Tensor& other : x.others) clash = clash || clashes(other);
  if (clash) return "an input overlaps out or the written slot, shifted";
  const Range output = x.output ? range(*x.output) : Range{};
  if (output.overlaps(written) || out.overlaps(history)) return "an input overlaps out or the written slot, shifted";
  if (output.overlaps(out) && (coupled || output.begin != out.begin))
    return "an input overlaps out or the written slot, shifted";
  return "";
}

inline const char* why_not_replayed([[maybe_unused]] const Arguments& x, [[maybe_unused]] const OnDevice& there) {
#ifdef TRILEMMA_CUDA
  if (there.table.scalar_type() != ScalarType::Float || !is_beside(there.table, x.z) || !there.table.is_contiguous())
    return "the table is not contiguous float32 beside z";
  for (const Tensor* number : {&there.row, &there.seed})
    if (!is_beside(*number, x.z)) return "row or seed is not beside z";
  return why_not(x);
#else
  return "it is for CUDA graphs";
#endif
}

}  // namespace
