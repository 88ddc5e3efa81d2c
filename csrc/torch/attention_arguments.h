// The arguments of the attention operators, for the CPU's bindings and for CUDA's.

#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <array>
#include <cmath>
#include <optional>
#include <tuple>

#include "binding.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using trilemma::Attention;
using trilemma::Heads;

constexpr int64_t kLargestDepth = 128;

// Depth is contiguous, as after a projection of tokens. One token has any stride.
inline bool depth_contiguous(const Tensor& x) { return x.stride(3) == 1; }

inline bool token_contiguous(const Tensor& x) { return x.stride(2) == 1 || x.size(2) == 1; }

inline Heads heads(const Tensor& x) {
  return {const_cast<void*>(x.const_data_ptr()), x.stride(0), x.stride(1), x.stride(2), x.stride(3)};
}

// [B, H, L, D] stored as [B, L, H, D], or as [B, H, D, L] where the tokens of `like` are contiguous and not its depth.
inline Tensor empty_like_heads(const Tensor& like, int64_t tokens) {
  const int64_t B = like.size(0), H = like.size(1), L = tokens, D = like.size(3);
  const std::array<int64_t, 4> sizes{B, H, L, D};
  const bool across = !depth_contiguous(like) && token_contiguous(like);
  const std::array<int64_t, 4> strides = across ? std::array<int64_t, 4>{H * D * L, D * L, 1, L}
                                                : std::array<int64_t, 4>{L * H * D, D, H * D, 1};
  int32_t dtype, device_type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle made;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(4, sizes.data(), strides.data(), dtype, device_type, like.get_device_index(), &made));
  return Tensor(made);
}

inline Tensor empty_rows(const Tensor& q) {
  const std::array<int64_t, 3> sizes{q.size(0), q.size(1), q.size(2)};
  const std::array<int64_t, 3> strides{q.size(1) * q.size(2), q.size(2), 1};
  int32_t device_type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(q.get(), &device_type));
  AtenTensorHandle made;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(3, sizes.data(), strides.data(), aoti_torch_dtype_float32(),
                                                         device_type, q.get_device_index(), &made));
  return Tensor(made);
}

inline bool same_shape(const Tensor& x, const Tensor& y) {
  if (x.dim() != y.dim()) return false;
  for (int64_t d = 0; d < x.dim(); ++d)
    if (x.size(d) != y.size(d)) return false;
  return true;
}

// What they should be is said by the reference's own check.
inline void check(const Tensor& q, const Tensor& k, const Tensor& v) {
  STD_TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && same_shape(k, v) && q.size(0) == k.size(0) &&
                      q.size(1) == k.size(1) && q.size(3) == k.size(3),
                  "attention: the arguments do not fit together");
}

// Why the kernels cannot take tensors that fit together; "" where they can.
inline const char* why_impossible(const Tensor& q, const std::vector<const Tensor*>& others) {
  const ScalarType type = q.scalar_type();
  if (!is_here(q)) return "the tensors differ in dtype or device";
  if (storage(type) == trilemma::cpu::kStorages) return "q is not float32, bfloat16 or float16";
  for (const Tensor* x : others)
    if (!is_beside(*x, q) || x->scalar_type() != type) return "the tensors differ in dtype or device";
  if (q.size(3) % 8 || q.size(3) == 0 || q.size(3) > kLargestDepth) return "the head dimension is not 8, 16, .. 128";
  if (others[0]->size(2) == 0) return "there are no keys";
  if (!depth_contiguous(q) && !token_contiguous(q)) return "neither depth nor tokens are contiguous";
  for (const Tensor* x : others)
    if (!depth_contiguous(*x) && !token_contiguous(*x)) return "neither depth nor tokens are contiguous";
  return "";
}

inline float scale_of(const Tensor& q, std::optional<double> scale) {
  return static_cast<float>(scale ? *scale : 1.0 / std::sqrt(static_cast<double>(q.size(3))));
}

// A call of the forward kernels, or of the backward ones, but for what it writes.
template <class Call>
Call described(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, std::optional<double> scale) {
  Call call;
  call.batch = q.size(0);
  call.heads = q.size(1);
  call.queries = q.size(2);
  call.keys = k.size(2);
  call.depth = q.size(3);
  call.scale = scale_of(q, scale);
  call.q = heads(q);
  call.k = heads(k);
  call.v = heads(v);
  call.out = heads(out);
  return call;
}

inline std::tuple<Tensor, Tensor> attention_by_reference(const Tensor& q, const Tensor& k, const Tensor& v,
                                                         std::optional<double> scale) {
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  std::array<StableIValue, 4> stack{from(q), from(k), from(v), from(scale)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("trilemma::attention_reference", "", stack.data(), TORCH_ABI_VERSION));
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1])};
}

}  // namespace
