// trilemma::group_norm_act, its out= form and its backward for CPU tensors: the native kernels where they can, the
// reference twins where they cannot.

#include <algorithm>
#include <memory>
#include <tuple>

#include "binding.h"
#include "channel_maps.h"
#include "results.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using trilemma::GroupNorm;
using trilemma::Phase;

using Optional = std::optional<Tensor>;
using Forward = std::tuple<Tensor, Tensor, Tensor>;
using Statistics = std::tuple<Tensor, Tensor>;
using Backward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

// The arguments that all three operators share.
struct Arguments {
  const Tensor& x;
  int64_t groups;
  const Optional &weight, &bias, &scale, &shift;
};

bool same_shape(const Tensor& a, const Tensor& b) { return same_sample(a, b) && a.size(0) == b.size(0); }

bool malformed(const Arguments& a) {
  if (a.x.dim() < 2 || a.groups < 1 || a.x.size(1) % a.groups != 0) return true;
  for (const Optional* tensor : {&a.weight, &a.bias})
    if (*tensor && ((*tensor)->dim() != 1 || (*tensor)->size(0) != a.x.size(1))) return true;
  for (const Optional* tensor : {&a.scale, &a.shift})
    if (*tensor &&
        ((*tensor)->dim() != 2 || (*tensor)->size(0) != a.x.size(0) || (*tensor)->size(1) != a.x.size(1)))
      return true;
  return false;
}

// Whether the channels of each pixel lie together, without gaps.
bool channels_last(const Tensor& x) {
  int64_t expected = 1;
  if (x.size(1) != 1 && x.stride(1) != expected) return false;
  expected *= x.size(1);
  for (int64_t d = x.dim() - 1; d >= 0; --d) {
    if (d == 1) continue;
    if (x.size(d) != 1 && x.stride(d) != expected) return false;
    expected *= x.size(d);
  }
  return true;
}

bool laid_out_like(const Tensor& tensor, const Tensor& x) {
  for (int64_t d = 0; d < x.dim(); ++d)
    if (x.size(d) != 1 && tensor.stride(d) != x.stride(d)) return false;
  return true;
}

// Why the native kernels cannot take well-formed arguments; "" where they can.
const char* why_not(const Arguments& a) {
  const ScalarType type = a.x.scalar_type();
  if (storage(type) == trilemma::cpu::kStorages) return "x is not float32, bfloat16 or float16";
  for (const Optional* tensor : {&a.weight, &a.bias, &a.scale, &a.shift}) {
    if (!*tensor) continue;
    if (!(*tensor)->is_cpu()) return "the tensors differ in device";
    const ScalarType own = (*tensor)->scalar_type();
    if (own != type && own != ScalarType::Float) return "weight, bias, scale or shift is neither float32 nor like x";
  }
  if (!a.x.is_contiguous() && !channels_last(a.x)) return "x is neither contiguous nor channels-last";
  return "";
}

// As above, of a tensor that is read or written along with x.
const char* why_not(const Tensor& tensor, const Arguments& a) {
  if (tensor.scalar_type() != a.x.scalar_type() || !tensor.is_cpu()) return "the tensors differ in dtype or device";
  if (!laid_out_like(tensor, a.x)) return "residual or out is not laid out like x";
  return "";
}

const char* why_not_forward(const Arguments& a, const Optional& residual, const Tensor* out) {
  const char* why = why_not(a);
  if (!*why && residual) why = why_not(*residual, a);
  if (*why || !out) return why;
  if (*(why = why_not(*out, a))) return why;
  // A row of x is read before it is written, its group having been read before.
  const Range written = range(*out);
  for (const Tensor* tensor : {&a.x, residual ? &*residual : &a.x})
    if (range(*tensor).overlaps(written) && range(*tensor).begin != written.begin) return "out overlaps an input, shifted";
  for (const Optional* tensor : {&a.weight, &a.bias, &a.scale, &a.shift})
    if (*tensor && range(**tensor).overlaps(written)) return "out overlaps an input, shifted";
  return "";
}

GroupNorm describe(const Arguments& a, bool silu) {
  GroupNorm call;
  call.samples = a.x.size(0);
  call.channels = a.x.size(1);
  call.groups = a.groups;
  for (int64_t d = 2; d < a.x.dim(); ++d) call.spatial *= a.x.size(d);
  call.channels_last = call.spatial == 1 || !a.x.is_contiguous();
  call.silu = silu;
  call.x = a.x.const_data_ptr();
  call.weight = per_channel(a.weight);
  call.bias = per_channel(a.bias);
  call.scale = per_channel(a.scale);
  call.shift = per_channel(a.shift);
  if (a.x.numel() > 0) call.cut();
  return call;
}

// Elements that are worth another thread.
constexpr int64_t kGrain = 16384;

void run_phase(const trilemma::cpu::Kernel<GroupNorm> kernel, GroupNorm& call, Phase phase, int64_t items) {
  call.phase = phase;
  const int64_t elements = call.samples * call.channels * call.spatial;
  const int64_t each = elements / items > 0 ? elements / items : 1;
  torch::stable::parallel_for(0, items, each < kGrain ? kGrain / each : 1,
                              [&](int64_t begin, int64_t end) { kernel(call, begin, end); });
}

// Whether the threads have equal shares of whole units.
bool by_units(const GroupNorm& call) {
  const int64_t units = call.units(), elements = call.samples * call.channels * call.spatial;
  const int64_t threads = torch::stable::get_num_threads();
  return units % threads == 0 || units >= 8 * threads || elements < 2 * kGrain;
}

Tensor statistics(const Tensor& x, int64_t groups) {
  return torch::stable::new_empty(x, {x.size(0), groups}, ScalarType::Float);
}

Statistics run(const Tensor& out, const Arguments& a, const Optional& residual, double eps, bool silu) {
  Tensor mean = statistics(a.x, a.groups), rstd = statistics(a.x, a.groups);
  if (a.x.numel() == 0) {
    torch::stable::fill_(mean, __builtin_nan(""));
    torch::stable::fill_(rstd, __builtin_nan(""));
    return {mean, rstd};
  }
  GroupNorm call = describe(a, silu);
  call.eps = static_cast<float>(eps);
  call.y = out.mutable_data_ptr();
  if (residual) call.residual = residual->const_data_ptr();
  call.stream = range(out).size >= kStreamed && call.y != call.x && call.y != call.residual;
  call.mean = static_cast<float*>(mean.mutable_data_ptr());
  call.rstd = static_cast<float*>(rstd.mutable_data_ptr());
  const std::unique_ptr<float[]> low(new float[call.samples * call.groups]);
  const std::unique_ptr<double[]> partial(new double[call.moment_partials()]);
  call.low = low.get();
  call.partial = partial.get();

  const auto kernel = trilemma::cpu::best().group_norm[storage(a.x.scalar_type())];
  if (by_units(call)) {
    run_phase(kernel, call, Phase::kWhole, call.units());
  } else {
    run_phase(kernel, call, Phase::kReduce, call.units() * call.pieces);
    call.phase = Phase::kFinish;
    kernel(call, 0, call.units());
    run_phase(kernel, call, Phase::kApply, call.rows());
  }
  return {mean, rstd};
}

using torch::stable::detail::from;
using torch::stable::detail::to;

Forward group_norm_act(Tensor x, int64_t groups, Optional weight, Optional bias, Optional scale, Optional shift,
                       Optional residual, double eps, bool silu, std::string backend) {
  const Arguments a{x, groups, weight, bias, scale, shift};
  STD_TORCH_CHECK(!malformed(a) && (!residual || same_shape(*residual, x)),
                  "group_norm_act: the arguments do not fit together");
  const char* why = backend == "reference" ? "asked for" : why_not_forward(a, residual, nullptr);
  if (!*why) {
    Tensor y = empty_result(x);
    const auto [mean, rstd] = run(y, a, residual, eps, silu);
    return {y, mean, rstd};
  }
  STD_TORCH_CHECK(backend != "native", "TRILEMMA_BACKEND=native, but group_norm_act cannot run natively: ", why);
  std::array<StableIValue, 9> stack{from(x),     from(groups),   from(weight), from(bias), from(scale),
                                    from(shift), from(residual), from(eps),    from(silu)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("trilemma::group_norm_act_reference", "", stack.data(), TORCH_ABI_VERSION));
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1]), to<Tensor>(stack[2])};
}

std::string group_norm_act_why_not_native(Tensor x, int64_t groups, Optional weight, Optional bias, Optional scale,
                                          Optional shift, Optional residual, double, bool) {
  const Arguments a{x, groups, weight, bias, scale, shift};
  STD_TORCH_CHECK(!malformed(a) && (!residual || same_shape(*residual, x)),
                  "group_norm_act: the arguments do not fit together");
  return why_not_forward(a, residual, nullptr);
}

Statistics group_norm_act_out(Tensor out, Tensor x, int64_t groups, Optional weight, Optional bias, Optional scale,
                              Optional shift, Optional residual, double eps, bool silu, std::string backend) {
  const Arguments a{x, groups, weight, bias, scale, shift};
  STD_TORCH_CHECK(!malformed(a) && (!residual || same_shape(*residual, x)) && same_shape(out, x),
                  "group_norm_act_out: the arguments do not fit together");
  const char* why = backend == "reference" ? "asked for" : why_not_forward(a, residual, &out);
  if (!*why) return run(out, a, residual, eps, silu);
  STD_TORCH_CHECK(backend != "native", "TRILEMMA_BACKEND=native, but group_norm_act_out cannot run natively: ", why);
  std::array<StableIValue, 10> stack{from(out),   from(x),     from(groups),   from(weight), from(bias),
                                     from(scale), from(shift), from(residual), from(eps),    from(silu)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("trilemma::group_norm_act_out_reference", "", stack.data(), TORCH_ABI_VERSION));
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1])};
}

std::string group_norm_act_out_why_not_native(Tensor out, Tensor x, int64_t groups, Optional weight, Optional bias,
                                              Optional scale, Optional shift, Optional residual, double, bool) {
  const Arguments a{x, groups, weight, bias, scale, shift};
  STD_TORCH_CHECK(!malformed(a) && (!residual || same_shape(*residual, x)) && same_shape(out, x),
                  "group_norm_act_out: the arguments do not fit together");
  return why_not_forward(a, residual, &out);
}

bool malformed_backward(const Arguments& a, const Tensor& dy, const Tensor& mean, const Tensor& rstd, size_t wanted) {
  if (malformed(a) || !same_shape(dy, a.x) || wanted != 5) return true;
  for (const Tensor* tensor : {&mean, &rstd})
    if (tensor->dim() != 2 || tensor->size(0) != a.x.size(0) || tensor->size(1) != a.groups) return true;
  return false;
}

const char* why_not_backward(const Arguments& a, const Tensor& dy, const Tensor& mean, const Tensor& rstd) {
  const char* why = why_not(a);
  if (*why) return why;
  if (dy.scalar_type() != a.x.scalar_type() || !dy.is_cpu()) return "the tensors differ in dtype or device";
  for (const Tensor* tensor : {&mean, &rstd})
    if (!tensor->is_cpu() || tensor->scalar_type() != ScalarType::Float || !tensor->is_contiguous())
      return "mean or rstd is not contiguous float32";
  return "";
}

Backward run_backward(const Tensor& given, const Arguments& a, const Tensor& mean, const Tensor& rstd, bool silu,
                      const std::vector<bool>& wanted) {
  Tensor dy = given;
  if (!laid_out_like(dy, a.x)) {
    dy = torch::stable::empty_like(a.x);
    torch::stable::copy_(dy, given);
  }
  GroupNorm call = describe(a, silu);
  const auto nothing = [&] { return torch::stable::new_empty(a.x, {0}); };
  Tensor dx = wanted[0] ? empty_result(a.x) : nothing();
  const Optional* parameters[4] = {&a.weight, &a.bias, &a.scale, &a.shift};
  trilemma::ChannelGradient* gradients[4] = {&call.dweight, &call.dbias, &call.dscale, &call.dshift};
  Tensor results[4];
  bool any = false;
  for (int i = 0; i < 4; ++i) {
    if (!wanted[1 + i] || !*parameters[i]) {
      results[i] = nothing();
      continue;
    }
    const ScalarType type = (*parameters[i])->scalar_type();
    results[i] = i < 2 ? torch::stable::new_empty(a.x, {call.channels}, type)
                       : torch::stable::new_empty(a.x, {call.samples, call.channels}, type);
    *gradients[i] = {results[i].mutable_data_ptr(), storage(type)};
    any = true;
  }

  const std::unique_ptr<double[]> sums(new double[2 * call.samples * call.channels]());
  call.channel_sums = sums.get();
  const auto kernel = trilemma::cpu::best().group_norm_backward[storage(a.x.scalar_type())];
  if (a.x.numel() > 0) {
    const std::unique_ptr<float[]> scratch(new float[3 * call.samples * call.groups]);
    const std::unique_ptr<double[]> partial(new double[call.channel_partials() + call.moment_partials()]);
    call.dy = dy.const_data_ptr();
    call.dx = wanted[0] ? dx.mutable_data_ptr() : nullptr;
    call.mean = static_cast<float*>(const_cast<void*>(mean.const_data_ptr()));
    call.rstd = static_cast<float*>(const_cast<void*>(rstd.const_data_ptr()));
    call.group_means = scratch.get();
    call.low = scratch.get() + 2 * call.samples * call.groups;
    call.partial = partial.get();
    if (by_units(call)) {
      run_phase(kernel, call, Phase::kWhole, call.units());
    } else {
      run_phase(kernel, call, Phase::kRecentre, call.units());
      run_phase(kernel, call, Phase::kReduce, call.rows());
      call.phase = Phase::kFinish;
      kernel(call, 0, call.units());
      if (call.dx) run_phase(kernel, call, Phase::kApply, call.rows());
    }
  }
  if (any) {
    call.phase = Phase::kGradients;
    kernel(call, 0, call.channels);
  }
  return {dx, results[0], results[1], results[2], results[3]};
}

Backward group_norm_act_backward(Tensor dy, Tensor x, Tensor mean, Tensor rstd, int64_t groups, Optional weight,
                                 Optional bias, Optional scale, Optional shift, bool silu, std::vector<bool> wanted,
                                 std::string backend) {
  const Arguments a{x, groups, weight, bias, scale, shift};
  STD_TORCH_CHECK(!malformed_backward(a, dy, mean, rstd, wanted.size()),
                  "group_norm_act_backward: the arguments do not fit together");
  const char* why = backend == "reference" ? "asked for" : why_not_backward(a, dy, mean, rstd);
  if (!*why) return run_backward(dy, a, mean, rstd, silu, wanted);
  STD_TORCH_CHECK(backend != "native",
                  "TRILEMMA_BACKEND=native, but group_norm_act_backward cannot run natively: ", why);
  std::array<bool, 5> flags;
  std::copy(wanted.begin(), wanted.end(), flags.begin());
  const torch::headeronly::HeaderOnlyArrayRef<bool> list(flags.data(), flags.size());
  std::array<StableIValue, 11> stack{from(dy),   from(x),     from(mean),  from(rstd), from(groups), from(weight),
                                     from(bias), from(scale), from(shift), from(silu), from(list)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("trilemma::group_norm_act_backward_reference", "", stack.data(), TORCH_ABI_VERSION));
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1]), to<Tensor>(stack[2]), to<Tensor>(stack[3]),
          to<Tensor>(stack[4])};
}

std::string group_norm_act_backward_why_not_native(Tensor dy, Tensor x, Tensor mean, Tensor rstd, int64_t groups,
                                                   Optional weight, Optional bias, Optional scale, Optional shift,
                                                   bool, std::vector<bool> wanted) {
  const Arguments a{x, groups, weight, bias, scale, shift};
  STD_TORCH_CHECK(!malformed_backward(a, dy, mean, rstd, wanted.size()),
                  "group_norm_act_backward: the arguments do not fit together");
  return why_not_backward(a, dy, mean, rstd);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(trilemma, library) {
  library.def(
      "group_norm_act_why_not_native(Tensor x, int groups, Tensor? weight, Tensor? bias, Tensor? scale, Tensor? shift, "
      "Tensor? residual, float eps, bool silu) -> str");
  library.def(
      "group_norm_act_out_why_not_native(Tensor out, Tensor x, int groups, Tensor? weight, Tensor? bias, Tensor? "
      "scale, Tensor? shift, Tensor? residual, float eps, bool silu) -> str");
  library.def(
      "group_norm_act_backward_why_not_native(Tensor dy, Tensor x, Tensor mean, Tensor rstd, int groups, Tensor? "
      "weight, Tensor? bias, Tensor? scale, Tensor? shift, bool silu, bool[] wanted) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(trilemma, CPU, library) {
  library.impl("group_norm_act", TORCH_BOX(&group_norm_act));
  library.impl("group_norm_act_why_not_native", TORCH_BOX(&group_norm_act_why_not_native));
  library.impl("group_norm_act_out", TORCH_BOX(&group_norm_act_out));
  library.impl("group_norm_act_out_why_not_native", TORCH_BOX(&group_norm_act_out_why_not_native));
  library.impl("group_norm_act_backward", TORCH_BOX(&group_norm_act_backward));
  library.impl("group_norm_act_backward_why_not_native", TORCH_BOX(&group_norm_act_backward_why_not_native));
}
