// trilemma::group_norm_act and its backward on CUDA: the kernels where they can, the reference twins where they cannot.

#include "trilemma/cuda_group_norm.h"

#include <algorithm>

#include "../binding.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using trilemma::cuda::ChannelVector;
using trilemma::cuda::GroupNorm;

using Three = std::tuple<Tensor, Tensor, Tensor>;
using Five = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

// Whether a tensor [B, C, ...] is dense with its channels before, or after, everything but the batch.
bool lies(const Tensor& x, bool channels_last) {
  int64_t stride = 1;
  const auto dense = [&](int64_t d) {
    const bool fits = x.size(d) == 1 || x.stride(d) == stride;
    stride *= x.size(d);
    return fits;
  };
  if (channels_last && !dense(1)) return false;
  for (int64_t d = x.dim() - 1; d > 1; --d)
    if (!dense(d)) return false;
  return (channels_last || dense(1)) && dense(0);
}

// The maps of an operator's channels, in the order of its schema.
struct Maps {
  const std::optional<Tensor>&weight, &bias, &scale, &shift;
};

bool malformed(const Tensor& x, int64_t groups, const Maps& maps) {
  if (x.dim() < 2 || groups < 1 || x.size(1) % groups) return true;
  for (const std::optional<Tensor>* map : {&maps.weight, &maps.bias})
    if (*map && ((*map)->dim() != 1 || (*map)->size(0) != x.size(1))) return true;
  for (const std::optional<Tensor>* map : {&maps.scale, &maps.shift})
    if (*map && ((*map)->dim() != 2 || (*map)->size(0) != x.size(0) || (*map)->size(1) != x.size(1))) return true;
  return false;
}

// Why the kernels cannot take well-formed arguments; "" where they can.
const char* why_not(const Tensor& x, int64_t groups, const Maps& maps, const std::optional<Tensor>& residual) {
  if (storage(x.scalar_type()) == trilemma::cpu::kStorages) return "x is not float32, bfloat16 or float16";
  if (!is_here(x)) return "the tensors differ in device";
  if (x.numel() == 0) return "x is empty";
  if (x.size(1) / groups > trilemma::cuda::kMostGroupChannels) return "a group has more than 1024 channels";
  if (!lies(x, false) && !lies(x, true)) return "x is neither contiguous nor channels-last";
  for (const std::optional<Tensor>* map : {&maps.weight, &maps.bias, &maps.scale, &maps.shift}) {
    if (!*map) continue;
    if (storage((*map)->scalar_type()) == trilemma::cpu::kStorages || !is_beside(**map, x))
      return "the tensors differ in device, or a map is of another dtype";
    if ((*map)->stride((*map)->dim() - 1) != 1 && x.size(1) > 1) return "the channels of a map are strided";
  }
  if (residual) {
    if (residual->scalar_type() != x.scalar_type() || !is_beside(*residual, x))
      return "the tensors differ in dtype or device";
    if (!same_sample(*residual, x) || residual->size(0) != x.size(0) || !lies(*residual, !lies(x, false)))
      return "residual lies otherwise than x";
  }
  return "";
}

ChannelVector vector(const Tensor& map) {
  return {map.data_ptr(), map.dim() > 1 ? map.stride(0) : 0, storage(map.scalar_type())};
}

GroupNorm call_of(const Tensor& x, int64_t groups, const Maps& maps, bool silu) {
  GroupNorm call;
  call.samples = x.size(0);
  call.channels = x.size(1);
  call.positions = x.numel() / (call.samples * call.channels);
  call.groups = groups;
  call.channels_last = !lies(x, false);
  call.silu = silu;
  call.x = x.const_data_ptr();
  if (maps.weight) call.weight = vector(*maps.weight);
  if (maps.bias) call.bias = vector(*maps.bias);
  if (maps.scale) call.scale = vector(*maps.scale);
  if (maps.shift) call.shift = vector(*maps.shift);
  return call;
}

Tensor floats(const Tensor& like, std::initializer_list<int64_t> sizes) {
  return torch::stable::new_empty(like, {sizes.begin(), sizes.size()}, ScalarType::Float);
}

void check(bool malformed) {
  STD_TORCH_CHECK(!malformed, "group_norm_act: the arguments do not fit together");
}

// Whether the reference is to run, for the reason `why`.
bool falls_back(const std::string& backend, const char* why) {
  if (backend == "reference") return true;
  STD_TORCH_CHECK(!*why || backend != "native",
                  "TRILEMMA_BACKEND=native, but group_norm_act cannot run natively: ", why);
  return *why;
}

Three group_norm_act(Tensor x, int64_t groups, std::optional<Tensor> weight, std::optional<Tensor> bias,
                     std::optional<Tensor> scale, std::optional<Tensor> shift, std::optional<Tensor> residual,
                     double eps, bool silu, std::string backend) {
  const Maps maps{weight, bias, scale, shift};
  check(malformed(x, groups, maps));
  if (falls_back(backend, why_not(x, groups, maps, residual))) {
    using torch::stable::detail::from;
    using torch::stable::detail::to;
    std::array<StableIValue, 9> stack{from(x),     from(groups),   from(weight), from(bias), from(scale),
                                      from(shift), from(residual), from(eps),    from(silu)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("trilemma::group_norm_act_reference", "", stack.data(), TORCH_ABI_VERSION));
    return {to<Tensor>(stack[0]), to<Tensor>(stack[1]), to<Tensor>(stack[2])};
  }
  GroupNorm call = call_of(x, groups, maps, silu);
  call.eps = static_cast<float>(eps);
  if (residual) call.residual = residual->const_data_ptr();
  const auto type = storage(x.scalar_type());
  const Here here(x);
  Tensor y = torch::stable::empty_like(x);
  Tensor mean = floats(x, {x.size(0), groups}), rstd = floats(x, {x.size(0), groups});
  Tensor scratch = floats(x, {trilemma::cuda::group_norm_scratch(call, type)});
  STD_TORCH_CHECK(lies(y, call.channels_last), "empty_like lies otherwise than its tensor");
  call.y = y.mutable_data_ptr();
  call.mean = static_cast<float*>(mean.mutable_data_ptr());
  call.rstd = static_cast<float*>(rstd.mutable_data_ptr());
  call.scratch = static_cast<float*>(scratch.mutable_data_ptr());
  check_launch(trilemma::cuda::group_norm(call, type, here.stream));
  return {y, mean, rstd};
}

Five group_norm_act_backward(Tensor dy, Tensor x, Tensor mean, Tensor rstd, int64_t groups,
                             std::optional<Tensor> weight, std::optional<Tensor> bias, std::optional<Tensor> scale,
                             std::optional<Tensor> shift, bool silu, std::vector<bool> wanted, std::string backend) {
  const Maps maps{weight, bias, scale, shift};
  check(malformed(x, groups, maps) || wanted.size() != 5 || !same_sample(dy, x) || dy.size(0) != x.size(0));
  const char* why = why_not(x, groups, maps, std::nullopt);
  if (!*why && (dy.scalar_type() != x.scalar_type() || !is_beside(dy, x))) why = "dy differs from x in dtype or device";
  if (falls_back(backend, why)) {
    using torch::stable::detail::from;
    using torch::stable::detail::to;
    std::array<bool, 5> flags{};
    std::copy(wanted.begin(), wanted.end(), flags.begin());
    const torch::headeronly::HeaderOnlyArrayRef<bool> wants(flags.data(), flags.size());
    std::array<StableIValue, 11> stack{from(dy),   from(x),     from(mean),  from(rstd), from(groups), from(weight),
                                       from(bias), from(scale), from(shift), from(silu), from(wants)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("trilemma::group_norm_act_backward_reference", "", stack.data(), TORCH_ABI_VERSION));
    return {to<Tensor>(stack[0]), to<Tensor>(stack[1]), to<Tensor>(stack[2]), to<Tensor>(stack[3]),
            to<Tensor>(stack[4])};
  }
  GroupNorm call = call_of(x, groups, maps, silu);
  const auto type = storage(x.scalar_type());
  const Here here(x);
  // The gradients of torch's own operators come with any strides.
  Tensor slopes = dy;
  if (!lies(dy, call.channels_last)) {
    slopes = torch::stable::empty_like(x);
    torch::stable::copy_(slopes, dy);
  }
  Tensor scratch = floats(x, {trilemma::cuda::group_norm_backward_scratch(call, type)});
  call.dy = slopes.const_data_ptr();
  call.mean = static_cast<float*>(mean.data_ptr());
  call.rstd = static_cast<float*>(rstd.data_ptr());
  call.scratch = static_cast<float*>(scratch.mutable_data_ptr());
  // What nobody wants is an empty tensor.
  const auto none = [&] {
    const int64_t zero = 0;
    return torch::stable::new_empty(x, {&zero, 1});
  };
  const auto gradient = [&](bool wants, const std::optional<Tensor>& of, ChannelVector& to) {
    if (!wants || !of) return none();
    Tensor made = torch::stable::new_empty(*of, of->sizes());
    to = vector(made);
    return made;
  };
  Tensor dx = wanted[0] ? torch::stable::empty_like(x) : none();
  if (wanted[0]) call.dx = dx.mutable_data_ptr();
  Tensor dweight = gradient(wanted[1], weight, call.dweight), dbias = gradient(wanted[2], bias, call.dbias);
  Tensor dscale = gradient(wanted[3], scale, call.dscale), dshift = gradient(wanted[4], shift, call.dshift);
  check_launch(trilemma::cuda::group_norm_backward(call, type, here.stream));
  return {dx, dweight, dbias, dscale, dshift};
}

std::string group_norm_act_why_not_native(Tensor x, int64_t groups, std::optional<Tensor> weight,
                                          std::optional<Tensor> bias, std::optional<Tensor> scale,
                                          std::optional<Tensor> shift, std::optional<Tensor> residual, double, bool) {
  const Maps maps{weight, bias, scale, shift};
  check(malformed(x, groups, maps));
  return why_not(x, groups, maps, residual);
}

std::string group_norm_act_backward_why_not_native(Tensor, Tensor x, Tensor, Tensor, int64_t groups,
                                                   std::optional<Tensor> weight, std::optional<Tensor> bias,
                                                   std::optional<Tensor> scale, std::optional<Tensor> shift, bool,
                                                   std::vector<bool>) {
  const Maps maps{weight, bias, scale, shift};
  check(malformed(x, groups, maps));
  return why_not(x, groups, maps, std::nullopt);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(TRILEMMA_LIBRARY, TRILEMMA_DEVICE, library) {
  library.impl("group_norm_act", TORCH_BOX(&group_norm_act));
  library.impl("group_norm_act_backward", TORCH_BOX(&group_norm_act_backward));
  library.impl("group_norm_act_backward_why_not_native", TORCH_BOX(&group_norm_act_backward_why_not_native));
  library.impl("group_norm_act_why_not_native", TORCH_BOX(&group_norm_act_why_not_native));
}
