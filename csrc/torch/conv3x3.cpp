// trilemma::conv3x3 for CPU tensors: the native kernel where it can and pays, the reference twin elsewhere.

#include "trilemma/conv3x3.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>

#include "binding.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using trilemma::Conv3x3;

int64_t filters_size(const Tensor& x, const Tensor& weight) {
  return trilemma::kPoints * trilemma::kPoints * x.size(1) * trilemma::padded_filters(weight.size(0));
}

// What they should be is said by the reference's own check.
void check(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& filters) {
  STD_TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && weight.size(1) == x.size(1) && weight.size(2) == 3 &&
                      weight.size(3) == 3 && (!bias || (bias->dim() == 1 && bias->size(0) == weight.size(0))) &&
                      filters.scalar_type() == ScalarType::Float && filters.dim() == 1 &&
                      filters.size(0) == filters_size(x, weight),
                  "conv3x3: the arguments do not fit together");
}

// Channels of each pixel together, as torch's channels_last.
bool channels_last(const Tensor& x) {
  const int64_t C = x.size(1), H = x.size(2), W = x.size(3);
  return x.stride(1) == 1 && x.stride(3) == C && x.stride(2) == W * C && x.stride(0) == H * W * C;
}

const char* why_impossible(const Tensor& x, const std::optional<Tensor>& bias, const Tensor& filters) {
  if (storage(x.scalar_type()) == trilemma::cpu::kStorages) return "x is not float32, bfloat16 or float16";
  if (x.size(1) == 0) return "there are no input channels";
  if (!x.is_cpu() || !filters.is_cpu() || (bias && !bias->is_cpu())) return "the tensors differ in device";
  if (bias && bias->scalar_type() != x.scalar_type() && bias->scalar_type() != ScalarType::Float)
    return "bias is neither float32 nor like x";
  if (!x.is_contiguous() && !channels_last(x)) return "x is neither contiguous nor channels-last";
  if (!filters.is_contiguous() || (bias && !bias->is_contiguous())) return "filters or bias are not contiguous";
  return "";
}

std::optional<Tensor> in_float32(const std::optional<Tensor>& bias) {
  if (!bias || bias->scalar_type() == ScalarType::Float) return bias;
  return torch::stable::to(*bias, ScalarType::Float);
}

Tensor run(const Tensor& x, const std::optional<Tensor>& bias, const Tensor& filters, int64_t channels) {
  const bool last = !x.is_contiguous();
  const int64_t B = x.size(0), C = x.size(1), H = x.size(2), W = x.size(3);
  const std::array<int64_t, 4> sizes{B, channels, H, W};
  const std::array<int64_t, 4> strides = last ? std::array<int64_t, 4>{H * W * channels, 1, W * channels, channels}
                                              : std::array<int64_t, 4>{channels * H * W, H * W, W, 1};
  int32_t dtype, device_type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device_type));
  AtenTensorHandle made;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(4, sizes.data(), strides.data(), dtype, device_type, 0, &made));
  Tensor y(made);
  if (y.numel() == 0) return y;
  const std::optional<Tensor> offset = in_float32(bias);
  Conv3x3 call{B, C, channels, H, W, last};
  call.x = x.const_data_ptr();
  call.filters = static_cast<const float*>(filters.const_data_ptr());
  call.bias = offset ? static_cast<const float*>(offset->const_data_ptr()) : nullptr;
  call.y = y.mutable_data_ptr();
  // A block of tiles a thread, or parts of its output channels where there are fewer.
  const int64_t threads = torch::stable::get_num_threads();
  if (call.tile_blocks() < 2 * threads)
    call.splits = std::clamp<int64_t>(2 * threads / call.tile_blocks(), 1, call.filter_blocks());
  const auto kernel = trilemma::cpu::best().conv3x3[storage(x.scalar_type())];
  torch::stable::parallel_for(0, call.items(), 1, [&](int64_t begin, int64_t end) { kernel(call, begin, end); });
  return y;
}

Tensor conv3x3(Tensor x, Tensor weight, std::optional<Tensor> bias, Tensor filters, std::string backend) {
  check(x, weight, bias, filters);
  const char* why = backend == "reference" ? "asked for" : why_impossible(x, bias, filters);
  STD_TORCH_CHECK(!*why || backend != "native", "TRILEMMA_BACKEND=native, but conv3x3 cannot run natively: ", why);
  if (!*why) return run(x, bias, filters, weight.size(0));
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  std::array<StableIValue, 4> stack{from(x), from(weight), from(bias), from(filters)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("trilemma::conv3x3_reference", "", stack.data(), TORCH_ABI_VERSION));
  return to<Tensor>(stack[0]);
}

std::string conv3x3_why_not_native(Tensor x, Tensor weight, std::optional<Tensor> bias, Tensor filters) {
  check(x, weight, bias, filters);
  return why_impossible(x, bias, filters);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(trilemma, library) {
  library.def("conv3x3_why_not_native(Tensor x, Tensor weight, Tensor? bias, Tensor filters) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(trilemma, CPU, library) {
  library.impl("conv3x3", TORCH_BOX(&conv3x3));
  library.impl("conv3x3_why_not_native", TORCH_BOX(&conv3x3_why_not_native));
}
