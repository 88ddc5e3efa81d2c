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
                 uint64_t seed, uint32_t step, int64_t begin, int64_t end) {
  const auto& kernels = kernels_for(isa);
  const int components = row.size() == static_cast<size_t>(trilemma::row_width(1)) ? 1 : 2;
  if (row.size() != static_cast<size_t>(trilemma::row_width(components)) || history.size() > trilemma::kMaxLags) throw py::value_error("a row of another width");
  trilemma::LinearStep call;
  call.row = trilemma::read_row(row.data(), components);
  call.components = components;
  call.samples = samples;
  call.elements = elements;
  call.replicas = replicas;
  call.branches = branches;
  call.lags = static_cast<int>(history.size());
  call.out = pointer<void>(out);
  call.z = pointer<const void>(z);
  call.base = pointer<const void>(base);
  call.output = pointer<const void>(output);
  call.prediction = pointer<void>(prediction);
  for (size_t j = 0; j < history.size(); ++j) call.history[j] = pointer<const void>(history[j]);
  call.indices = pointer<const int64_t>(indices);
  call.seed = seed;
  call.step = step;
  if (end < 0) end = trilemma::blocks(samples, elements);
  kernels.linear_step[storage(dtype)](call, begin, end);
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
             "history"_a = std::vector<uintptr_t>{}, "indices"_a = 0, "seed"_a = 0, "step"_a = 0, "begin"_a = 0,
             "end"_a = -1, "The fused step on addresses; `row` as the coefficient table lays it out.");
}
