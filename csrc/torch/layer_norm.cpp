// trilemma::layer_norm and its backward on the library's device: the native kernels where they can, the reference twins
// where they cannot.

#include <algorithm>
#include <tuple>

#include "binding.h"
#include "channel_maps.h"
#include "results.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using trilemma::LayerNorm;

using Optional = std::optional<Tensor>;
using Forward = std::tuple<Tensor, Tensor, Tensor>;
using Backward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

// The arguments that both operators share.
struct Arguments {
  const Tensor& x;
  const Optional &weight, &bias, &scale, &shift;
};

int64_t channels(const Tensor& x) { return x.size(x.dim() - 1); }

bool malformed(const Arguments& a) {
  if (a.x.dim() < 2) return true;
  for (const Optional* tensor : {&a.weight, &a.bias})
    if (*tensor && ((*tensor)->dim() != 1 || (*tensor)->size(0) != channels(a.x))) return true;
  for (const Optional* tensor : {&a.scale, &a.shift})
    if (*tensor && ((*tensor)->dim() != 2 || (*tensor)->size(0) != a.x.size(0) || (*tensor)->size(1) != channels(a.x)))
      return true;
  return false;
}

// Why the native kernels cannot take well-formed arguments; "" where they can.
const char* why_not(const Arguments& a) {
  const ScalarType type = a.x.scalar_type();
  if (storage(type) == trilemma::cpu::kStorages) return "x is not float32, bfloat16 or float16";
  if (!is_here(a.x)) return "the tensors differ in device";
  for (const Optional* tensor : {&a.weight, &a.bias, &a.scale, &a.shift}) {
    if (!*tensor) continue;
    if (!is_beside(**tensor, a.x)) return "the tensors differ in device";
    const ScalarType own = (*tensor)->scalar_type();
    if (own != type && own != ScalarType::Float) return "weight, bias, scale or shift is neither float32 nor like x";
  }
  return a.x.is_contiguous() ? "" : "x is not contiguous";
}

LayerNorm describe(const Arguments& a) {
  LayerNorm call;
  call.samples = a.x.size(0);
  call.channels = channels(a.x);
  call.tokens = a.x.numel() / (call.samples * call.channels);
  call.x = a.x.const_data_ptr();
  call.weight = per_channel(a.weight);
  call.bias = per_channel(a.bias);
  call.scale = per_channel(a.scale);
  call.shift = per_channel(a.shift);
  return call;
}

// Elements that are worth another thread, and those of a piece.
constexpr int64_t kGrain = 16384, kPiece = 65536;

int64_t at_least_one(int64_t count) { return count > 0 ? count : 1; }

Tensor statistics(const Tensor& x) {
  const auto sizes = x.sizes();
  return torch::stable::new_empty(x, {sizes.data(), static_cast<size_t>(x.dim() - 1)}, ScalarType::Float);
}

using torch::stable::detail::from;
using torch::stable::detail::to;

Forward layer_norm(Tensor x, Optional weight, Optional bias, Optional scale, Optional shift, double eps,
                   std::string backend) {
  const Arguments a{x, weight, bias, scale, shift};
  STD_TORCH_CHECK(!malformed(a), "layer_norm: the arguments do not fit together");
  const char* why = backend == "reference" ? "asked for" : why_not(a);
  if (*why) {
    STD_TORCH_CHECK(backend != "native", "TRILEMMA_BACKEND=native, but layer_norm cannot run natively: ", why);
    std::array<StableIValue, 6> stack{from(x), from(weight), from(bias), from(scale), from(shift), from(eps)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("trilemma::layer_norm_reference", "", stack.data(), TORCH_ABI_VERSION));
    return {to<Tensor>(stack[0]), to<Tensor>(stack[1]), to<Tensor>(stack[2])};
  }
  Tensor y = empty_result(x), mean = statistics(x), rstd = statistics(x);
  if (x.numel() == 0) {
    torch::stable::fill_(mean, __builtin_nan(""));
    torch::stable::fill_(rstd, __builtin_nan(""));
    return {y, mean, rstd};
  }
  LayerNorm call = describe(a);
  call.eps = static_cast<float>(eps);
  call.mean = static_cast<float*>(mean.mutable_data_ptr());
  call.rstd = static_cast<float*>(rstd.mutable_data_ptr());
  call.y = y.mutable_data_ptr();
  call.stream = range(y).size >= kStreamed;
  run_kernel(TRILEMMA_KERNEL(layer_norm), call, x, call.samples * call.tokens, at_least_one(kGrain / call.channels));
  return {y, mean, rstd};
}

std::string layer_norm_why_not_native(Tensor x, Optional weight, Optional bias, Optional scale, Optional shift,
                                      double) {
  const Arguments a{x, weight, bias, scale, shift};
  STD_TORCH_CHECK(!malformed(a), "layer_norm: the arguments do not fit together");
  return why_not(a);
}

bool malformed_backward(const Arguments& a, const Tensor& dy, const Tensor& mean, const Tensor& rstd, size_t wanted) {
  if (malformed(a) || !same_sample(dy, a.x) || dy.size(0) != a.x.size(0) || wanted != 5) return true;
  for (const Tensor* tensor : {&mean, &rstd}) {
    if (tensor->dim() != a.x.dim() - 1) return true;
    for (int64_t d = 0; d < tensor->dim(); ++d)
      if (tensor->size(d) != a.x.size(d)) return true;
  }
  return false;
}

const char* why_not_backward(const Arguments& a, const Tensor& dy, const Tensor& mean, const Tensor& rstd) {
  const char* why = why_not(a);
  if (*why) return why;
  if (dy.scalar_type() != a.x.scalar_type() || !is_beside(dy, a.x)) return "the tensors differ in dtype or device";
  for (const Tensor* tensor : {&mean, &rstd})
    if (!is_beside(*tensor, a.x) || tensor->scalar_type() != ScalarType::Float || !tensor->is_contiguous())
      return "mean or rstd is not contiguous float32";
  return "";
}

Backward run_backward(Tensor dy, const Arguments& a, const Tensor& mean, const Tensor& rstd,
                      const std::vector<bool>& wanted) {
  // The gradients of torch's own operators come with any strides.
  if (!dy.is_contiguous()) {
    const Tensor given = dy;
    dy = torch::stable::empty_like(a.x);
    torch::stable::copy_(dy, given);
  }
  const auto nothing = [&] { return torch::stable::new_empty(a.x, {0}); };
  Tensor dx = wanted[0] ? empty_result(a.x) : nothing();
  Tensor results[4];
  const Optional* maps[4] = {&a.weight, &a.bias, &a.scale, &a.shift};
  const bool empty = a.x.numel() == 0;
  LayerNorm call;
  trilemma::ChannelGradient* gradients[4] = {&call.dweight, &call.dbias, &call.dscale, &call.dshift};
  if (!empty) call = describe(a);
  bool any = false;
  for (int i = 0; i < 4; ++i) {
    if (!wanted[1 + i] || !*maps[i]) {
      results[i] = nothing();
      continue;
    }
    const auto sizes = (*maps[i])->sizes();
    results[i] = torch::stable::new_empty(**maps[i], {sizes.data(), static_cast<size_t>((*maps[i])->dim())});
    if (empty) torch::stable::fill_(results[i], 0.0);
    *gradients[i] = {results[i].mutable_data_ptr(), storage((*maps[i])->scalar_type())};
    any = true;
  }
  if (empty) return {dx, results[0], results[1], results[2], results[3]};

  call.dy = dy.const_data_ptr();
  call.dx = wanted[0] ? dx.mutable_data_ptr() : nullptr;
  call.mean = static_cast<float*>(const_cast<void*>(mean.const_data_ptr()));
  call.rstd = static_cast<float*>(const_cast<void*>(rstd.const_data_ptr()));
  call.piece = at_least_one(kPiece / call.channels);
  call.pieces = (call.tokens + call.piece - 1) / call.piece;
  Tensor sums;
  if (any) {
    sums = torch::stable::new_empty(a.x, {call.samples, call.pieces, 2, call.channels}, ScalarType::Float);
    call.partial = static_cast<float*>(sums.mutable_data_ptr());
  }
  run_kernel(TRILEMMA_KERNEL(layer_norm_backward), call, a.x, call.samples * call.pieces, 1);
  if (any) {
    call.adds_up = true;
    run_kernel(TRILEMMA_KERNEL(layer_norm_backward), call, a.x, call.channels, 256);
  }
  return {dx, results[0], results[1], results[2], results[3]};
}

Backward layer_norm_backward(Tensor dy, Tensor x, Tensor mean, Tensor rstd, Optional weight, Optional bias,
                             Optional scale, Optional shift, std::vector<bool> wanted, std::string backend) {
  const Arguments a{x, weight, bias, scale, shift};
  STD_TORCH_CHECK(!malformed_backward(a, dy, mean, rstd, wanted.size()),
                  "layer_norm_backward: the arguments do not fit together");
  const char* why = backend == "reference" ? "asked for" : why_not_backward(a, dy, mean, rstd);
  if (!*why) return run_backward(dy, a, mean, rstd, wanted);
  STD_TORCH_CHECK(backend != "native", "TRILEMMA_BACKEND=native, but layer_norm_backward cannot run natively: ", why);
  std::array<bool, 5> flags{};
  std::copy(wanted.begin(), wanted.end(), flags.begin());
  const torch::headeronly::HeaderOnlyArrayRef<bool> list(flags.data(), flags.size());
  std::array<StableIValue, 9> stack{from(dy),   from(x),     from(mean),  from(rstd), from(weight),
                                    from(bias), from(scale), from(shift), from(list)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("trilemma::layer_norm_backward_reference", "", stack.data(), TORCH_ABI_VERSION));
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1]), to<Tensor>(stack[2]), to<Tensor>(stack[3]),
          to<Tensor>(stack[4])};
}

std::string layer_norm_backward_why_not_native(Tensor dy, Tensor x, Tensor mean, Tensor rstd, Optional weight,
                                               Optional bias, Optional scale, Optional shift,
                                               std::vector<bool> wanted) {
  const Arguments a{x, weight, bias, scale, shift};
  STD_TORCH_CHECK(!malformed_backward(a, dy, mean, rstd, wanted.size()),
                  "layer_norm_backward: the arguments do not fit together");
  return why_not_backward(a, dy, mean, rstd);
}

}  // namespace

#ifndef TRILEMMA_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(trilemma, library) {
  library.def(
      "layer_norm_why_not_native(Tensor x, Tensor? weight, Tensor? bias, Tensor? scale, Tensor? shift, float eps) -> "
      "str");
  library.def(
      "layer_norm_backward_why_not_native(Tensor dy, Tensor x, Tensor mean, Tensor rstd, Tensor? weight, Tensor? bias, "
      "Tensor? scale, Tensor? shift, bool[] wanted) -> str");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(TRILEMMA_LIBRARY, TRILEMMA_DEVICE, library) {
  library.impl("layer_norm", TORCH_BOX(&layer_norm));
  library.impl("layer_norm_why_not_native", TORCH_BOX(&layer_norm_why_not_native));
  library.impl("layer_norm_backward", TORCH_BOX(&layer_norm_backward));
  library.impl("layer_norm_backward_why_not_native", TORCH_BOX(&layer_norm_backward_why_not_native));
}
