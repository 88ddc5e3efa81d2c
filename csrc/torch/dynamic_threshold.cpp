// trilemma::dynamic_threshold on the library's device: the native kernel where it can, the reference twin where it cannot.

#include "binding.h"

namespace {

using torch::stable::Tensor;

bool malformed(const Tensor& out, const Tensor& x, double quantile, double floor) {
  if (x.dim() < 1 || !same_sample(out, x) || out.size(0) != x.size(0)) return true;
  return !(quantile >= 0 && quantile <= 1 && floor > 0);
}

const char* why_not(const Tensor& out, const Tensor& x) {
  if (storage(x.scalar_type()) == trilemma::cpu::kStorages) return "x is not float32, bfloat16 or float16";
  if (out.scalar_type() != x.scalar_type() || !is_beside(out, x)) return "the tensors differ in dtype or device";
  if (!out.is_contiguous() || !x.is_contiguous()) return "a tensor is not contiguous";
  const int64_t bytes = x.numel() * static_cast<int64_t>(x.element_size());
  if (shifted(range(x), range(out), bytes ? bytes : 1)) return "x overlaps out, shifted";
  return "";
}

void dynamic_threshold(Tensor out, Tensor x, double quantile, double floor, std::string backend) {
  STD_TORCH_CHECK(!malformed(out, x, quantile, floor), "dynamic_threshold: the arguments do not fit together");
  const char* why = backend == "reference" ? "asked for" : why_not(out, x);
  if (*why) {
    STD_TORCH_CHECK(backend != "native", "TRILEMMA_BACKEND=native, but dynamic_threshold cannot run natively: ", why);
    using torch::stable::detail::from;
    std::array<StableIValue, 4> stack{from(out), from(x), from(quantile), from(floor)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("trilemma::dynamic_threshold_reference", "", stack.data(), TORCH_ABI_VERSION));
    return;
  }
  if (x.numel() == 0) return;
  trilemma::DynamicThreshold call;
  call.samples = x.size(0);
  call.elements = x.numel() / call.samples;
  call.out = out.mutable_data_ptr();
  call.x = x.const_data_ptr();
  call.quantile = quantile;
  call.floor = floor;
  run_kernel(TRILEMMA_KERNEL(dynamic_threshold), call, x, call.samples, 1);
}

std::string dynamic_threshold_why_not_native(Tensor out, Tensor x, double quantile, double floor) {
  STD_TORCH_CHECK(!malformed(out, x, quantile, floor), "dynamic_threshold: the arguments do not fit together");
  return why_not(out, x);
}

}  // namespace

#ifndef TRILEMMA_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(trilemma, library) {
  library.def("dynamic_threshold_why_not_native(Tensor out, Tensor x, float quantile, float floor) -> str");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(TRILEMMA_LIBRARY, TRILEMMA_DEVICE, library) {
  library.impl("dynamic_threshold", TORCH_BOX(&dynamic_threshold));
  library.impl("dynamic_threshold_why_not_native", TORCH_BOX(&dynamic_threshold_why_not_native));
}
