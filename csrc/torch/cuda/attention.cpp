// trilemma::attention for CUDA tensors: the native kernel where it can and is asked for, the reference twin elsewhere.
// Its gradient is the reference's.

#include <tuple>

#include "../attention_arguments.h"

namespace {

// There is no record of any GPU yet.
const char* why_slow(const Tensor& q) {
  return q.numel() == 0 ? "" : "it was not measured on this GPU, where PyTorch's attention is taken";
}

std::tuple<Tensor, Tensor> attention(Tensor q, Tensor k, Tensor v, std::optional<double> scale, std::string backend) {
  check(q, k, v);
  const char* why = backend == "reference" ? "asked for" : why_impossible(q, {&k, &v});
  STD_TORCH_CHECK(!*why || backend != "native", "TRILEMMA_BACKEND=native, but attention cannot run natively: ", why);
  if (!*why && backend != "native") why = why_slow(q);
  if (*why) return attention_by_reference(q, k, v, scale);
  const Here here(q);
  Tensor out = empty_like_heads(q, q.size(2)), lse = empty_rows(q);
  auto call = described<Attention>(q, k, v, out, scale);
  call.lse = static_cast<float*>(lse.mutable_data_ptr());
  check_launch(trilemma::cuda::attention(call, storage(q.scalar_type()), here.stream));
  return {out, lse};
}

std::string attention_why_not_native(Tensor q, Tensor k, Tensor v, std::optional<double>) {
  check(q, k, v);
  const char* why = why_impossible(q, {&k, &v});
  return *why ? why : why_slow(q);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(TRILEMMA_LIBRARY, TRILEMMA_DEVICE, library) {
  library.impl("attention", TORCH_BOX(&attention));
  library.impl("attention_why_not_native", TORCH_BOX(&attention_why_not_native));
}
