// trilemma::glu and its backward on the library's device: the native kernels where they can, the reference twins where
// they cannot.

#include "binding.h"
#include "results.h"

namespace {

using torch::stable::Tensor;
using trilemma::Glu;

int64_t last(const Tensor& x) { return x.size(x.dim() - 1); }

bool malformed(const Tensor& x) { return x.dim() < 1 || last(x) % 2 != 0; }

// The elements from a row of x to the next; -1 where there is no such number.
int64_t row_stride(const Tensor& x) {
  if (x.dim() == 1) return last(x);
  int64_t d = x.dim() - 2;
  while (d > 0 && x.size(d) == 1) --d;
  const int64_t stride = x.stride(d);
  int64_t expected = stride * x.size(d);
  for (--d; d >= 0; --d) {
    if (x.size(d) != 1 && x.stride(d) != expected) return -1;
    expected *= x.size(d);
  }
  return stride;
}

const char* why_not(const Tensor& x) {
  if (storage(x.scalar_type()) == trilemma::cpu::kStorages) return "x is not float32, bfloat16 or float16";
  if (!is_here(x)) return "the tensors differ in device";
  if (x.numel() > 0 && (x.stride(x.dim() - 1) != 1 || row_stride(x) < 0)) return "the rows of x lie in no order";
  return "";
}

Glu describe(const Tensor& x, bool silu) {
  Glu call;
  call.rows = x.numel() / last(x);
  call.channels = last(x) / 2;
  call.x = x.const_data_ptr();
  call.x_stride = row_stride(x);
  call.silu = silu;
  return call;
}

constexpr int64_t kGrain = 8192;  // elements that are worth another thread

int64_t rows_a_thread(const Glu& call) { return call.channels < kGrain ? kGrain / call.channels : 1; }

Tensor glu(Tensor x, bool silu, std::string backend) {
  STD_TORCH_CHECK(!malformed(x), "glu: the arguments do not fit together");
  const char* why = backend == "reference" ? "asked for" : why_not(x);
  if (*why) {
    STD_TORCH_CHECK(backend != "native", "TRILEMMA_BACKEND=native, but glu cannot run natively: ", why);
    using torch::stable::detail::from;
    std::array<StableIValue, 2> stack{from(x), from(silu)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("trilemma::glu_reference", "", stack.data(), TORCH_ABI_VERSION));
    return torch::stable::detail::to<Tensor>(stack[0]);
  }
  std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  sizes.back() /= 2;
  Tensor out = new_result(x, sizes);
  if (x.numel() == 0) return out;
  Glu call = describe(x, silu);
  call.out = out.mutable_data_ptr();
  call.stream = range(out).size >= kStreamed;
  run_kernel(TRILEMMA_KERNEL(glu), call, x, call.rows, rows_a_thread(call));
  return out;
}

std::string glu_why_not_native(Tensor x, bool) {
  STD_TORCH_CHECK(!malformed(x), "glu: the arguments do not fit together");
  return why_not(x);
}

bool malformed_backward(const Tensor& dy, const Tensor& x) {
  if (malformed(x) || dy.dim() != x.dim() || 2 * last(dy) != last(x)) return true;
  for (int64_t d = 0; d + 1 < x.dim(); ++d)
    if (dy.size(d) != x.size(d)) return true;
  return false;
}

const char* why_not_backward(const Tensor& dy, const Tensor& x) {
  if (dy.scalar_type() != x.scalar_type() || !is_beside(dy, x)) return "the tensors differ in dtype or device";
  return why_not(x);
}

Tensor glu_backward(Tensor dy, Tensor x, bool silu, std::string backend) {
  STD_TORCH_CHECK(!malformed_backward(dy, x), "glu_backward: the arguments do not fit together");
  const char* why = backend == "reference" ? "asked for" : why_not_backward(dy, x);
  if (*why) {
    STD_TORCH_CHECK(backend != "native", "TRILEMMA_BACKEND=native, but glu_backward cannot run natively: ", why);
    using torch::stable::detail::from;
    std::array<StableIValue, 3> stack{from(dy), from(x), from(silu)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("trilemma::glu_backward_reference", "", stack.data(), TORCH_ABI_VERSION));
    return torch::stable::detail::to<Tensor>(stack[0]);
  }
  const std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  Tensor dx = new_result(x, sizes);
  if (x.numel() == 0) return dx;
  // The gradients of torch's own operators come with any strides.
  if (!dy.is_contiguous()) {
    const Tensor given = dy;
    dy = torch::stable::new_empty(given, {given.sizes().data(), static_cast<size_t>(given.dim())});
    torch::stable::copy_(dy, given);
  }
  Glu call = describe(x, silu);
  call.dy = dy.const_data_ptr();
  call.dx = dx.mutable_data_ptr();
  run_kernel(TRILEMMA_KERNEL(glu_backward), call, x, call.rows, rows_a_thread(call));
  return dx;
}

std::string glu_backward_why_not_native(Tensor dy, Tensor x, bool) {
  STD_TORCH_CHECK(!malformed_backward(dy, x), "glu_backward: the arguments do not fit together");
  return why_not_backward(dy, x);
}

}  // namespace

#ifndef TRILEMMA_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(trilemma, library) {
  library.def("glu_why_not_native(Tensor x, bool silu) -> str");
  library.def("glu_backward_why_not_native(Tensor dy, Tensor x, bool silu) -> str");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(TRILEMMA_LIBRARY, TRILEMMA_DEVICE, library) {
  library.impl("glu", TORCH_BOX(&glu));
  library.impl("glu_why_not_native", TORCH_BOX(&glu_why_not_native));
  library.impl("glu_backward", TORCH_BOX(&glu_backward));
  library.impl("glu_backward_why_not_native", TORCH_BOX(&glu_backward_why_not_native));
}
