// trilemma::attention and its gradient for CPU tensors: the native kernel where it can and was measured to win, the
// reference twin elsewhere.

#include <algorithm>
#include <tuple>

#include "attention_arguments.h"
#include "choice.h"

namespace {

using trilemma::AttentionBackward;

const char* why_slow(const Tensor& q, const Tensor& k, const trilemma::Choice& choice) {
  if (q.numel() == 0) return "";
  const double tokens = 0.5 * std::log2(static_cast<double>(q.size(2)) * static_cast<double>(k.size(2)));
  return choice.why_not(storage(q.scalar_type()), depth_contiguous(q), tokens, std::log2(q.size(3)));
}

// Items of work that are worth a thread, `cost` multiplications each.
int64_t grain(int64_t cost) { return std::max<int64_t>(1, (int64_t{1} << 18) / std::max<int64_t>(cost, 1)); }

std::tuple<Tensor, Tensor> run(const Tensor& q, const Tensor& k, const Tensor& v, std::optional<double> scale) {
  Tensor out = empty_like_heads(q, q.size(2)), lse = empty_rows(q);
  auto call = described<Attention>(q, k, v, out, scale);
  call.lse = static_cast<float*>(lse.mutable_data_ptr());
  const auto kernel = trilemma::cpu::best().attention[storage(q.scalar_type())];
  const int64_t items = call.batch * call.heads * trilemma::query_blocks(call.queries);
  if (items == 0) return {out, lse};  // which torch 2.11 would divide by
  torch::stable::parallel_for(0, items, grain(2 * trilemma::kQueryBlock * call.keys * call.depth),
                              [&](int64_t begin, int64_t end) { kernel(call, begin, end); });
  return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor> run_backward(const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v,
                                                const Tensor& out, const Tensor& lse, std::optional<double> scale) {
  Tensor dq = empty_like_heads(q, q.size(2)), dk = empty_like_heads(k, k.size(2)), dv = empty_like_heads(v, k.size(2));
  auto call = described<AttentionBackward>(q, k, v, out, scale);
  call.dout = heads(dout);
  call.dq = heads(dq);
  call.dk = heads(dk);
  call.dv = heads(dv);
  call.lse = static_cast<const float*>(lse.const_data_ptr());
  const auto kernel = trilemma::cpu::best().attention_backward[storage(q.scalar_type())];
  if (call.batch * call.heads == 0) return {dq, dk, dv};
  torch::stable::parallel_for(0, call.batch * call.heads, grain(5 * call.queries * call.keys * call.depth),
                              [&](int64_t begin, int64_t end) { kernel(call, begin, end); });
  return {dq, dk, dv};
}

// PyTorch's fused kernel, as the reference calls it, without the way through Python: at the sizes that are left to it a
// detour costs as much as the work.
std::tuple<Tensor, Tensor> hand_over(const Tensor& q, const Tensor& k, const Tensor& v, std::optional<double> scale) {
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  std::array<StableIValue, 7> stack{from(q),    from(k), from(v), from(0.0), from(false), from(std::optional<Tensor>()),
                                    from(scale)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::_scaled_dot_product_flash_attention_for_cpu", "",
                                                      stack.data(), TORCH_ABI_VERSION));
  Tensor out = to<Tensor>(stack[0]), lse = to<Tensor>(stack[1]);
  if (lse.is_contiguous()) return {out, lse};
  Tensor rows = empty_rows(q);
  return {out, torch::stable::copy_(rows, lse)};
}

std::tuple<Tensor, Tensor> attention(Tensor q, Tensor k, Tensor v, std::optional<double> scale, std::string backend) {
  check(q, k, v);
  const char* why = backend == "reference" ? "asked for" : why_impossible(q, {&k, &v});
  STD_TORCH_CHECK(!*why || backend != "native", "TRILEMMA_BACKEND=native, but attention cannot run natively: ", why);
  if (!*why) {
    if (backend == "native" || !*why_slow(q, k, trilemma::choices().attention)) return run(q, k, v, scale);
    if (depth_contiguous(q) && depth_contiguous(k) && depth_contiguous(v)) return hand_over(q, k, v, scale);
  }
  return attention_by_reference(q, k, v, scale);
}

void check_backward(const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                    const Tensor& lse) {
  check(q, k, v);
  STD_TORCH_CHECK(same_shape(dout, q) && same_shape(out, q) && lse.dim() == 3 && lse.size(0) == q.size(0) &&
                      lse.size(1) == q.size(1) && lse.size(2) == q.size(2),
                  "attention_backward: the arguments do not fit together");
}

const char* why_impossible_backward(const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v,
                                    const Tensor& out, const Tensor& lse) {
  const char* why = why_impossible(q, {&k, &v, &out, &dout});
  if (*why) return why;
  return lse.is_cpu() && lse.scalar_type() == ScalarType::Float && lse.is_contiguous() ? ""
                                                                                       : "logsumexp is not as the native kernel leaves it";
}

std::tuple<Tensor, Tensor, Tensor> attention_backward(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse,
                                                      std::optional<double> scale, std::string backend) {
  check_backward(dout, q, k, v, out, lse);
  const char* why = backend == "reference" ? "asked for" : why_impossible_backward(dout, q, k, v, out, lse);
  STD_TORCH_CHECK(!*why || backend != "native",
                  "TRILEMMA_BACKEND=native, but attention_backward cannot run natively: ", why);
  if (!*why && backend != "native") why = why_slow(q, k, trilemma::choices().attention_backward);
  if (!*why) return run_backward(dout, q, k, v, out, lse, scale);
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  std::array<StableIValue, 7> stack{from(dout), from(q), from(k), from(v), from(out), from(lse), from(scale)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("trilemma::attention_backward_reference", "", stack.data(), TORCH_ABI_VERSION));
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1]), to<Tensor>(stack[2])};
}

std::string attention_why_not_native(Tensor q, Tensor k, Tensor v, std::optional<double>) {
  check(q, k, v);
  const char* why = why_impossible(q, {&k, &v});
  return *why ? why : why_slow(q, k, trilemma::choices().attention);
}

std::string attention_backward_why_not_native(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse,
                                              std::optional<double>) {
  check_backward(dout, q, k, v, out, lse);
  const char* why = why_impossible_backward(dout, q, k, v, out, lse);
  return *why ? why : why_slow(q, k, trilemma::choices().attention_backward);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(trilemma, library) {
  library.def("attention_why_not_native(Tensor q, Tensor k, Tensor v, float? scale) -> str");
  library.def(
      "attention_backward_why_not_native(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor logsumexp, "
      "float? scale) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(trilemma, CPU, library) {
  library.impl("attention", TORCH_BOX(&attention));
  library.impl("attention_backward", TORCH_BOX(&attention_backward));
  library.impl("attention_why_not_native", TORCH_BOX(&attention_why_not_native));
  library.impl("attention_backward_why_not_native", TORCH_BOX(&attention_backward_why_not_native));
}
