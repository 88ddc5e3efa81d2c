// trilemma._C: what was built and what this machine runs. Needs no torch. The raw-pointer entries serve tests and
// benchmarks: they check nothing.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <vector>

#include "trilemma/cpu.h"
#include "trilemma/philox.h"

namespace py = pybind11;
using namespace py::literals;

namespace {

const trilemma::cpu::Kernels& kernels_for(const std::string& isa) {
  int count = 0;
  const trilemma::cpu::Kernels* built = trilemma::cpu::built(&count);
  for (int i = 0; i < count; ++i)
    if (isa == built[i].isa && trilemma::cpu::runs_here(built[i])) return built[i];
  throw py::value_error("instruction set " + isa + " was not built or does not run here");
}

std::vector<std::string> instruction_sets(bool only_here) {
  int count = 0;
  const trilemma::cpu::Kernels* built = trilemma::cpu::built(&count);
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i)
    if (!only_here || trilemma::cpu::runs_here(built[i])) names.emplace_back(built[i].isa);
  return names;
}

py::dict build_info() {
  return py::dict("version"_a = TRILEMMA_VERSION, "compiler"_a = TRILEMMA_COMPILER, "flags"_a = TRILEMMA_FLAGS,
                  "system"_a = TRILEMMA_SYSTEM, "torch"_a = TRILEMMA_TORCH, "torch_abi"_a = TRILEMMA_TORCH_ABI,
                  "isas"_a = instruction_sets(false), "cuda"_a = *TRILEMMA_CUDA_BUILT ? py::object(py::str(TRILEMMA_CUDA_BUILT)) : py::none(),
                  "cuda_why_not"_a = TRILEMMA_CUDA_WHY_NOT);
}

trilemma::cpu::Storage storage(const std::string& dtype) {
  if (dtype == "float32") return trilemma::cpu::kFloat32;
  if (dtype == "bfloat16") return trilemma::cpu::kBFloat16;
  if (dtype == "float16") return trilemma::cpu::kFloat16;
  throw py::value_error("no kernel for " + dtype);
}

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void normal(const std::string& isa, const std::string& dtype, uintptr_t out, uintptr_t indices, int64_t samples,
            int64_t elements, uint64_t seed, uint32_t step, uint32_t stream, int64_t begin, int64_t end) {
  const auto& kernels = kernels_for(isa);
  trilemma::NormalFill fill;
  fill.samples = samples;
  fill.elements = elements;
  fill.out = pointer<void>(out);
  fill.indices = pointer<const int64_t>(indices);
  fill.seed = seed;
  fill.step = step;
  fill.stream = stream;
  if (end < 0) end = trilemma::blocks(samples, elements);
  kernels.normal[storage(dtype)](fill, begin, end);
}

void linear_step(const std::string& isa, const std::string& dtype, uintptr_t out, uintptr_t z, uintptr_t base,
                 uintptr_t output, const std::vector<float>& row, int64_t samples, int64_t elements, int replicas,
                 int branches, uintptr_t prediction, const std::vector<uintptr_t>& history, uintptr_t indices,
                 uint64_t seed, uint32_t step, const std::vector<uintptr_t>& others, int64_t begin, int64_t end) {
  const auto& kernels = kernels_for(isa);
  const int components = row.size() == static_cast<size_t>(trilemma::row_width(1)) ? 1 : 2;
  if (row.size() != static_cast<size_t>(trilemma::row_width(components)) || history.size() > trilemma::kMaxLags || others.size() > trilemma::kMaxOthers) throw py::value_error("a row of another width");
  trilemma::LinearStep call;
  call.row = trilemma::read_row(row.data(), components);
  call.components = components;
  call.samples = samples;
  call.elements = elements;
  call.replicas = replicas;
  call.branches = branches;
  call.lags = static_cast<int>(history.size());
  call.others = static_cast<int>(others.size());
  call.out = pointer<void>(out);
  call.z = pointer<const void>(z);
  call.base = pointer<const void>(base);
  call.output = pointer<const void>(output);
  call.prediction = pointer<void>(prediction);
  for (size_t j = 0; j < history.size(); ++j) call.history[j] = pointer<const void>(history[j]);
  for (size_t n = 0; n < others.size(); ++n) call.other[n] = pointer<const void>(others[n]);
  call.indices = pointer<const int64_t>(indices);
  call.seed = seed;
  call.step = step;
  if (end < 0) end = trilemma::blocks(samples, elements);
  kernels.linear_step[storage(dtype)](call, begin, end);
}

void perturb(const std::string& isa, const std::string& dtype, uintptr_t z, uintptr_t target, uintptr_t x0,
             uintptr_t noise, uintptr_t coefficients, int64_t samples, int64_t elements, int64_t begin, int64_t end) {
  trilemma::Perturb call;
  call.samples = samples;
  call.elements = elements;
  call.z = pointer<void>(z);
  call.target = pointer<void>(target);
  call.x0 = pointer<const void>(x0);
  call.noise = pointer<const void>(noise);
  call.coefficients = pointer<const double>(coefficients);
  kernels_for(isa).perturb[storage(dtype)](call, begin, end < 0 ? trilemma::blocks(samples, elements) : end);
}

void dynamic_threshold(const std::string& isa, const std::string& dtype, uintptr_t out, uintptr_t x, int64_t samples,
                       int64_t elements, double quantile, double floor, int64_t begin, int64_t end) {
  const trilemma::DynamicThreshold call{samples, elements, pointer<void>(out), pointer<const void>(x), quantile, floor};
  kernels_for(isa).dynamic_threshold[storage(dtype)](call, begin, end < 0 ? samples : end);
}

// Forward where `dy` is 0, else backward. Parameters and their gradients are float32 and contiguous, in the order
// weight, bias, scale, shift; 0 for absent.
void group_norm(const std::string& isa, const std::string& dtype, const std::array<int64_t, 4>& sizes,
                bool channels_last, bool silu, float eps, uintptr_t x, uintptr_t mean, uintptr_t rstd,
                const std::array<uintptr_t, 4>& parameters, uintptr_t residual, uintptr_t y, uintptr_t dy, uintptr_t dx,
                const std::array<uintptr_t, 4>& gradients, bool whole, int64_t begin) {
  using trilemma::Phase;
  const auto& kernels = kernels_for(isa);
  trilemma::GroupNorm call;
  call.samples = sizes[0];
  call.channels = sizes[1];
  call.spatial = sizes[2];
  call.groups = sizes[3];
  call.channels_last = channels_last;
  call.silu = silu;
  call.eps = eps;
  call.cut();
  call.x = pointer<const void>(x);
  call.mean = pointer<float>(mean);
  call.rstd = pointer<float>(rstd);
  const auto parameter = [&](int i) {
    return trilemma::PerChannel{pointer<const void>(parameters[i]), trilemma::cpu::kFloat32, i < 2 ? 0 : sizes[1], 1};
  };
  call.weight = parameter(0), call.bias = parameter(1), call.scale = parameter(2), call.shift = parameter(3);
  call.residual = pointer<const void>(residual);
  call.y = pointer<void>(y);
  call.dy = pointer<const void>(dy);
  call.dx = pointer<void>(dx);
  const auto gradient = [&](int i) { return trilemma::ChannelGradient{pointer<void>(gradients[i]), 0}; };
  call.dweight = gradient(0), call.dbias = gradient(1), call.dscale = gradient(2), call.dshift = gradient(3);
  std::vector<float> low(sizes[0] * sizes[3]), means(2 * low.size());
  std::vector<double> partial(call.channel_partials() + call.moment_partials()), sums(2 * sizes[0] * sizes[1]);
  call.low = low.data();
  call.group_means = means.data();
  call.partial = partial.data();
  call.channel_sums = sums.data();

  const auto kernel = dy ? kernels.group_norm_backward[storage(dtype)] : kernels.group_norm[storage(dtype)];
  const auto run = [&](Phase phase, int64_t items) {
    call.phase = phase;
    for (int64_t i = items - 1; i >= begin; --i) kernel(call, i, i + 1);
  };
  if (whole) {
    run(Phase::kWhole, call.units());
  } else {
    if (dy) run(Phase::kRecentre, call.units());
    run(Phase::kReduce, dy ? call.rows() : call.units() * call.pieces);
    run(Phase::kFinish, call.units());
    run(Phase::kApply, call.rows());
  }
  if (dy) run(Phase::kGradients, call.channels);
}

// Forward where `dy` is 0, else backward, a token or piece at a time. Maps and their gradients are float32 and
// contiguous, in the order weight, bias, scale, shift; 0 for absent. Sizes are B, the tokens of a sample, C.
void layer_norm(const std::string& isa, const std::string& dtype, const std::array<int64_t, 3>& sizes, float eps,
                uintptr_t x, uintptr_t mean, uintptr_t rstd, const std::array<uintptr_t, 4>& maps, uintptr_t y,
                uintptr_t dy, uintptr_t dx, const std::array<uintptr_t, 4>& gradients, int64_t piece, int64_t begin) {
  const auto& kernels = kernels_for(isa);
  trilemma::LayerNorm call;
  call.samples = sizes[0];
  call.tokens = sizes[1];
  call.channels = sizes[2];
  call.eps = eps;
  call.x = pointer<const void>(x);
  call.mean = pointer<float>(mean);
  call.rstd = pointer<float>(rstd);
  const auto map = [&](int i) {
    return trilemma::PerChannel{pointer<const void>(maps[i]), trilemma::cpu::kFloat32, i < 2 ? 0 : sizes[2], 1};
  };
  call.weight = map(0), call.bias = map(1), call.scale = map(2), call.shift = map(3);
  call.y = pointer<void>(y);
  if (!dy) {
    for (int64_t i = sizes[0] * sizes[1] - 1; i >= begin; --i) kernels.layer_norm[storage(dtype)](call, i, i + 1);
    return;
  }
  call.dy = pointer<const void>(dy);
  call.dx = pointer<void>(dx);
  const auto gradient = [&](int i) { return trilemma::ChannelGradient{pointer<void>(gradients[i]), 0}; };
  call.dweight = gradient(0), call.dbias = gradient(1), call.dscale = gradient(2), call.dshift = gradient(3);
  call.piece = piece;
  call.pieces = (call.tokens + piece - 1) / piece;
  std::vector<float> sums(call.samples * call.pieces * 2 * call.channels);
  call.partial = sums.data();
  const auto kernel = kernels.layer_norm_backward[storage(dtype)];
  for (int64_t i = call.samples * call.pieces - 1; i >= 0; --i) kernel(call, i, i + 1);
  call.adds_up = true;
  kernel(call, 0, call.channels);
}

// Forward where `dy` is 0, else backward. All tensors are contiguous.
void glu(const std::string& isa, const std::string& dtype, int64_t rows, int64_t channels, bool silu, uintptr_t x,
         uintptr_t out, uintptr_t dy, uintptr_t dx, int64_t begin) {
  const auto& kernels = kernels_for(isa);
  trilemma::Glu call;
  call.rows = rows;
  call.channels = channels;
  call.silu = silu;
  call.x = pointer<const void>(x);
  call.x_stride = 2 * channels;
  call.out = pointer<void>(out);
  call.dy = pointer<const void>(dy);
  call.dx = pointer<void>(dx);
  (dy ? kernels.glu_backward : kernels.glu)[storage(dtype)](call, begin, rows);
}

// A tensor [batch, heads, tokens, depth]: its address and its strides in elements.
using Strided = std::array<int64_t, 5>;

trilemma::Heads heads(const Strided& x) { return {reinterpret_cast<void*>(x[0]), x[1], x[2], x[3], x[4]}; }

void attention(const std::string& isa, const std::string& dtype, const std::array<int64_t, 5>& sizes, float scale,
               const Strided& q, const Strided& k, const Strided& v, const Strided& out, uintptr_t lse, int64_t begin,
               int64_t end) {
  trilemma::Attention call{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4],   scale,
                           heads(q), heads(k), heads(v), heads(out), pointer<float>(lse)};
  if (end < 0) end = call.batch * call.heads * trilemma::query_blocks(call.queries);
  kernels_for(isa).attention[storage(dtype)](call, begin, end);
}

void attention_backward(const std::string& isa, const std::string& dtype, const std::array<int64_t, 5>& sizes,
                        float scale, const std::array<Strided, 5>& inputs, uintptr_t lse,
                        const std::array<Strided, 3>& gradients) {
  trilemma::AttentionBackward call{sizes[0],
                                   sizes[1],
                                   sizes[2],
                                   sizes[3],
                                   sizes[4],
                                   scale,
                                   heads(inputs[0]),
                                   heads(inputs[1]),
                                   heads(inputs[2]),
                                   heads(inputs[3]),
                                   heads(inputs[4]),
                                   heads(gradients[0]),
                                   heads(gradients[1]),
                                   heads(gradients[2]),
                                   pointer<const float>(lse)};
  kernels_for(isa).attention_backward[storage(dtype)](call, 0, call.batch * call.heads);
}

void conv3x3(const std::string& isa, const std::string& dtype, const std::array<int64_t, 5>& sizes, bool channels_last,
             uintptr_t x, uintptr_t filters, uintptr_t bias, uintptr_t y, int64_t splits, int64_t begin, int64_t end) {
  trilemma::Conv3x3 call{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], channels_last};
  call.x = pointer<const void>(x);
  call.filters = pointer<const float>(filters);
  call.bias = pointer<const float>(bias);
  call.y = pointer<void>(y);
  call.splits = splits;
  kernels_for(isa).conv3x3[storage(dtype)](call, begin, end < 0 ? call.items() : end);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Build information, the CPU's instruction set, and raw entries of the kernels.";
  module.def("build_info", &build_info, "What this was built with.");
  module.def("cpu_isa", [] { return std::string(trilemma::cpu::best().isa); }, "The instruction set in use.");
  module.def("cpu_isas", [] { return instruction_sets(true); }, "Those built that this machine runs.");
  module.def(
      "philox",
      [](const std::array<uint32_t, 4>& c, const std::array<uint32_t, 2>& k) {
        const auto x = trilemma::philox({c[0], c[1], c[2], c[3]}, {k[0], k[1]});
        return py::make_tuple(x.c0, x.c1, x.c2, x.c3);
      },
      "counter"_a, "key"_a, "The four words of Philox 4x32-10.");
  module.def("normal", &normal, py::kw_only(), "isa"_a, "dtype"_a, "out"_a, "indices"_a, "samples"_a, "elements"_a,
             "seed"_a = 0, "step"_a = 0, "stream"_a = 1, "begin"_a = 0, "end"_a = -1,
             "Keyed normals on addresses; blocks [begin, end), -1 for all.");
  module.def("linear_step", &linear_step, py::kw_only(), "isa"_a, "dtype"_a, "out"_a, "z"_a, "base"_a, "output"_a,
             "row"_a, "samples"_a, "elements"_a, "replicas"_a = 1, "branches"_a = 1, "prediction"_a = 0,
             "history"_a = std::vector<uintptr_t>{}, "indices"_a = 0, "seed"_a = 0, "step"_a = 0,
             "others"_a = std::vector<uintptr_t>{}, "begin"_a = 0, "end"_a = -1, "The fused step on addresses; `row` as the coefficient table lays it out.");
  module.def("perturb", &perturb, py::kw_only(), "isa"_a, "dtype"_a, "z"_a, "target"_a, "x0"_a, "noise"_a,
             "coefficients"_a, "samples"_a, "elements"_a, "begin"_a = 0, "end"_a = -1,
             "The noised state and the target on addresses; coefficients are float64 [B, 4].");
  module.def("dynamic_threshold", &dynamic_threshold, py::kw_only(), "isa"_a, "dtype"_a, "out"_a, "x"_a, "samples"_a,
             "elements"_a, "quantile"_a = 0.995, "floor"_a = 1.0, "begin"_a = 0, "end"_a = -1,
             "Dynamic thresholding on addresses; whole samples [begin, end), -1 for all.");
  module.def("group_norm", &group_norm, py::kw_only(), "isa"_a, "dtype"_a, "sizes"_a, "channels_last"_a, "silu"_a,
             "eps"_a, "x"_a, "mean"_a, "rstd"_a, "parameters"_a = std::array<uintptr_t, 4>{}, "residual"_a = 0,
             "y"_a = 0, "dy"_a = 0, "dx"_a = 0, "gradients"_a = std::array<uintptr_t, 4>{}, "whole"_a = true, "begin"_a = 0,
             "Group normalisation on addresses; sizes are B, C, the elements of a channel, groups.");
  module.def("layer_norm", &layer_norm, py::kw_only(), "isa"_a, "dtype"_a, "sizes"_a, "eps"_a, "x"_a, "mean"_a,
             "rstd"_a, "maps"_a = std::array<uintptr_t, 4>{}, "y"_a = 0, "dy"_a = 0, "dx"_a = 0,
             "gradients"_a = std::array<uintptr_t, 4>{}, "piece"_a = 1, "begin"_a = 0,
             "Layer normalisation on addresses; sizes are B, the tokens of a sample, C.");
  module.def("glu", &glu, py::kw_only(), "isa"_a, "dtype"_a, "rows"_a, "channels"_a, "silu"_a, "x"_a, "out"_a = 0,
             "dy"_a = 0, "dx"_a = 0, "begin"_a = 0, "Gated linear units on addresses.");
  module.def("attention", &attention, py::kw_only(), "isa"_a, "dtype"_a, "sizes"_a, "scale"_a, "q"_a, "k"_a, "v"_a,
             "out"_a, "lse"_a, "begin"_a = 0, "end"_a = -1,
             "Attention on addresses: sizes are [B, H, Lq, Lk, D], a tensor is its address and its four strides.");
  module.def("attention_backward", &attention_backward, py::kw_only(), "isa"_a, "dtype"_a, "sizes"_a, "scale"_a,
             "inputs"_a, "lse"_a, "gradients"_a, "Its gradient: inputs are q, k, v, out and dout.");
  module.def("conv3x3", &conv3x3, py::kw_only(), "isa"_a, "dtype"_a, "sizes"_a, "channels_last"_a, "x"_a, "filters"_a,
             "bias"_a, "y"_a, "splits"_a = 1, "begin"_a = 0, "end"_a = -1,
             "The 3x3 convolution on addresses: sizes are [B, C, K, H, W], bias is float32.");
}
