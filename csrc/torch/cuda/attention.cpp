// trilemma::attention for CUDA tensors: the native kernel where it can and was measured to win, the reference twin
// elsewhere. Its gradient is the reference's.

#include <map>
#include <mutex>
#include <tuple>

#include "../attention_arguments.h"
#include "../attention_choice.h"

namespace {

// The record of the current device's architecture.
const trilemma::Choice& choice() {
  static std::mutex mutex;
  static std::map<std::string, trilemma::Choice> made;
  int device = 0, major = 0, minor = 0;
  check_launch(cudaGetDevice(&device));
  check_launch(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  check_launch(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  const std::string name = "sm_" + std::to_string(major) + std::to_string(minor);
  const std::lock_guard<std::mutex> lock(mutex);
  return made.try_emplace(name, name.c_str()).first->second;
}

const char* why_slow(const Tensor& q, const Tensor& k) {
  if (q.numel() == 0) return "";
  const Here here(q);
  const trilemma::Choice& record = choice();
  if (!record.known()) return "it was not measured on this GPU, where PyTorch's attention is taken";
  return record.why_not(trilemma::kForward, storage(q.scalar_type()), depth_contiguous(q), q.size(2), k.size(2),
                        q.size(3));
}

std::tuple<Tensor, Tensor> attention(Tensor q, Tensor k, Tensor v, std::optional<double> scale, std::string backend) {
  check(q, k, v);
  const char* why = backend == "reference" ? "asked for" : why_impossible(q, {&k, &v});
  STD_TORCH_CHECK(!*why || backend != "native", "TRILEMMA_BACKEND=native, but attention cannot run natively: ", why);
  if (!*why && backend != "native") why = why_slow(q, k);
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
  return *why ? why : why_slow(q, k);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(TRILEMMA_LIBRARY, TRILEMMA_DEVICE, library) {
  library.impl("attention", TORCH_BOX(&attention));
  library.impl("attention_why_not_native", TORCH_BOX(&attention_why_not_native));
}
