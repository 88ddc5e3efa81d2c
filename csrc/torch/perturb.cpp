// trilemma::perturb on the library's device: the native kernel where it can, the reference twin where it cannot.

#include "binding.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

using Pair = std::tuple<Tensor, Tensor>;

bool malformed(const Tensor& x0, const Tensor& coefficients, const std::optional<Tensor>& indices,
               const std::optional<Tensor>& noise) {
  if (x0.dim() < 1 || coefficients.dim() != 2 || coefficients.size(0) != x0.size(0) || coefficients.size(1) != 4)
    return true;
  if (coefficients.scalar_type() != ScalarType::Double || (!indices && !noise)) return true;
  if (noise && (!same_sample(*noise, x0) || noise->size(0) != x0.size(0))) return true;
  return indices &&
         (indices->dim() != 1 || indices->size(0) != x0.size(0) || indices->scalar_type() != ScalarType::Long);
}

const char* why_not(const Tensor& x0, const Tensor& coefficients, const std::optional<Tensor>& indices,
                    const std::optional<Tensor>& noise) {
  const ScalarType type = x0.scalar_type();
  if (storage(type) == trilemma::cpu::kStorages) return "x0 is not float32, bfloat16 or float16";
  if (noise && (noise->scalar_type() != type || !is_beside(*noise, x0))) return "the tensors differ in dtype or device";
  if (!is_beside(coefficients, x0) || (indices && !is_beside(*indices, x0)))
    return "the tensors differ in dtype or device";
  if (!x0.is_contiguous() || !coefficients.is_contiguous()) return "a tensor is not contiguous";
  for (const std::optional<Tensor>* tensor : {&indices, &noise})
    if (*tensor && !(*tensor)->is_contiguous()) return "a tensor is not contiguous";
  return "";
}

Pair perturb(Tensor x0, Tensor coefficients, int64_t seed, int64_t step, std::optional<Tensor> indices,
             std::optional<Tensor> noise, std::string backend) {
  STD_TORCH_CHECK(!malformed(x0, coefficients, indices, noise), "perturb: the arguments do not fit together");
  const char* why = backend == "reference" ? "asked for" : why_not(x0, coefficients, indices, noise);
  if (*why) {
    STD_TORCH_CHECK(backend != "native", "TRILEMMA_BACKEND=native, but perturb cannot run natively: ", why);
    using torch::stable::detail::from;
    using torch::stable::detail::to;
    std::array<StableIValue, 6> stack{from(x0),   from(coefficients), from(seed),
                                      from(step), from(indices),      from(noise)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("trilemma::perturb_reference", "", stack.data(), TORCH_ABI_VERSION));
    return {to<Tensor>(stack[0]), to<Tensor>(stack[1])};
  }
  Tensor z = torch::stable::empty_like(x0), target = torch::stable::empty_like(x0);
  if (x0.numel() == 0) return {z, target};
  trilemma::Perturb call;
  call.samples = x0.size(0);
  call.elements = x0.numel() / call.samples;
  call.z = z.mutable_data_ptr();
  call.target = target.mutable_data_ptr();
  call.x0 = x0.const_data_ptr();
  call.coefficients = static_cast<const double*>(coefficients.const_data_ptr());
  if (noise) call.noise = noise->const_data_ptr();
  if (indices) call.indices = static_cast<const int64_t*>(indices->const_data_ptr());
  call.seed = static_cast<uint64_t>(seed);
  call.step = static_cast<uint32_t>(step);
  run_kernel(TRILEMMA_KERNEL(perturb), call, x0, trilemma::blocks(call.samples, call.elements),
             call.noise ? 128 : 16);
  return {z, target};
}

std::string perturb_why_not_native(Tensor x0, Tensor coefficients, int64_t, int64_t, std::optional<Tensor> indices,
                                   std::optional<Tensor> noise) {
  STD_TORCH_CHECK(!malformed(x0, coefficients, indices, noise), "perturb: the arguments do not fit together");
  return why_not(x0, coefficients, indices, noise);
}

}  // namespace

#ifndef TRILEMMA_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(trilemma, library) {
  library.def(
      "perturb_why_not_native(Tensor x0, Tensor coefficients, int seed, int step, Tensor? indices, Tensor? noise) -> "
      "str");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(TRILEMMA_LIBRARY, TRILEMMA_DEVICE, library) {
  library.impl("perturb", TORCH_BOX(&perturb));
  library.impl("perturb_why_not_native", TORCH_BOX(&perturb_why_not_native));
}
