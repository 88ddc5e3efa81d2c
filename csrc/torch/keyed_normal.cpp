// trilemma::keyed_normal on the library's device: the native kernel where it can, the reference twin where it cannot.

#include "binding.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

void check(const Tensor& out, const Tensor& indices) {
  STD_TORCH_CHECK(out.dim() >= 1 && indices.dim() == 1 && indices.size(0) == out.size(0) &&
                      indices.scalar_type() == ScalarType::Long,
                  "keyed_normal: the arguments do not fit together");
}

const char* why_not(const Tensor& out, const Tensor& indices) {
  if (storage(out.scalar_type()) == trilemma::cpu::kStorages) return "out is not float32, bfloat16 or float16";
  if (!is_beside(indices, out)) return "the tensors differ in device";
  if (!out.is_contiguous() || !indices.is_contiguous()) return "a tensor is not contiguous";
  return "";
}

void keyed_normal(Tensor out, Tensor indices, int64_t seed, int64_t step, int64_t stream, std::string backend) {
  check(out, indices);
  const char* why = backend == "reference" ? "asked for" : why_not(out, indices);
  if (*why) {
    STD_TORCH_CHECK(backend != "native", "TRILEMMA_BACKEND=native, but keyed_normal cannot run natively: ", why);
    using torch::stable::detail::from;
    std::array<StableIValue, 5> stack{from(out), from(indices), from(seed), from(step), from(stream)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("trilemma::keyed_normal_reference", "", stack.data(), TORCH_ABI_VERSION));
    return;
  }
  if (out.numel() == 0) return;
  trilemma::NormalFill fill;
  fill.samples = out.size(0);
  fill.elements = out.numel() / fill.samples;
  fill.out = out.mutable_data_ptr();
  fill.indices = static_cast<const int64_t*>(indices.const_data_ptr());
  fill.seed = static_cast<uint64_t>(seed);
  fill.step = static_cast<uint32_t>(step);
  fill.stream = static_cast<uint32_t>(stream);
  run_kernel(TRILEMMA_KERNEL(normal), fill, out, trilemma::blocks(fill.samples, fill.elements), 16);
}

std::string keyed_normal_why_not_native(Tensor out, Tensor indices, int64_t, int64_t, int64_t) {
  check(out, indices);
  return why_not(out, indices);
}

}  // namespace

#ifndef TRILEMMA_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(trilemma, library) {
  library.def("keyed_normal_why_not_native(Tensor out, Tensor indices, int seed, int step, int stream) -> str");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(TRILEMMA_LIBRARY, TRILEMMA_DEVICE, library) {
  library.impl("keyed_normal", TORCH_BOX(&keyed_normal));
  library.impl("keyed_normal_why_not_native", TORCH_BOX(&keyed_normal_why_not_native));
}
