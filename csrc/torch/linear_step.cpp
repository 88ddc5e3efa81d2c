// trilemma::linear_step on the library's device: the native kernel where it can, the reference twin where it cannot.

#include "binding.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using trilemma::LinearStep;

// K of a table of this width; 0 for a width that is no table's.
int components(const Tensor& table) {
  for (int k = 1; k <= trilemma::kMaxComponents; ++k)
    if (table.size(1) == trilemma::row_width(k)) return k;
  return 0;
}

trilemma::Row read_row(const Tensor& table, int64_t row) {
  return trilemma::read_row(static_cast<const double*>(table.const_data_ptr()) + row * table.stride(0),
                            components(table));
}

// The arguments of the operator, in the order of its schema.
struct Arguments {
  const Tensor &out, &z, &base, &output, &table;
  int64_t row;
  const std::optional<Tensor>& history;
  int64_t write_slot;
  const std::vector<int64_t>& read_slots;
  int64_t seed;
  const std::optional<Tensor>&indices, &noise, &bad_row;
};

// Whether the arguments fit together at all; what they should be is said by the reference's own check.
bool malformed(const Arguments& x) {
  if (x.z.dim() < 1 || x.table.dim() != 2 || !components(x.table)) return true;
  const int k = components(x.table);
  if (k > 1 && (x.z.dim() < 2 || x.z.size(1) % k)) return true;
  if (x.row < 0 || x.row >= x.table.size(0) || !x.table.is_cpu() || x.table.scalar_type() != ScalarType::Double)
    return true;
  const int64_t batch = x.z.size(0);
  const auto like_z = [&](const Tensor& tensor) { return same_sample(tensor, x.z) && tensor.size(0) == batch; };
  // Dim d of a prediction, which has one component's channels.
  const auto predicted = [&](int64_t d) { return x.z.size(d) / (d == 1 ? k : 1); };
  const auto replicated = [&](const Tensor& tensor, bool prediction) {
    if (tensor.dim() != x.z.dim()) return false;
    for (int64_t d = 1; d < x.z.dim(); ++d)
      if (tensor.size(d) != (prediction ? predicted(d) : x.z.size(d))) return false;
    if (batch == 0) return tensor.size(0) == 0;
    const int64_t copies = tensor.size(0) / batch;
    return tensor.size(0) % batch == 0 && copies >= 1 && copies <= trilemma::kMaxBranches;
  };
  const auto one_each = [&](const std::optional<Tensor>& tensor, ScalarType type) {
    return !tensor || (tensor->dim() == 1 && tensor->size(0) == batch && tensor->scalar_type() == type);
  };
  if (!like_z(x.base) || !replicated(x.output, true) || !replicated(x.out, false) || (x.noise && !like_z(*x.noise))) return true;
  if (!one_each(x.indices, ScalarType::Long) || !one_each(x.bad_row, ScalarType::Int)) return true;

  int64_t slots = 0;
  if (x.history) {
    slots = x.history->dim() < 1 ? -1 : x.history->size(0);
    if (x.history->dim() != x.z.dim() + 1) return true;
    for (int64_t d = 0; d < x.z.dim(); ++d)
      if (x.history->size(d + 1) != predicted(d)) return true;
  }
  if (x.write_slot < -1 || x.write_slot >= slots || x.read_slots.size() > trilemma::kMaxLags) return true;
  for (const int64_t slot : x.read_slots)
    if (slot < 0 || slot >= slots) return true;
  return false;
}

// Why the native kernel cannot take well-formed arguments; "" where it can.
const char* why_not(const Arguments& x) {
  const ScalarType type = x.z.scalar_type();
  if (storage(type) == trilemma::cpu::kStorages) return "z is not float32, bfloat16 or float16";
  const auto fits = [&](const Tensor& tensor) { return is_beside(tensor, x.z) && tensor.scalar_type() == type; };
  for (const Tensor* tensor : {&x.out, &x.z, &x.base, &x.output})
    if (!fits(*tensor)) return "the tensors differ in dtype or device";
  if ((x.history && !fits(*x.history)) || (x.noise && !fits(*x.noise))) return "the tensors differ in dtype or device";
  for (const std::optional<Tensor>* tensor : {&x.indices, &x.bad_row})
    if (*tensor && !is_beside(**tensor, x.z)) return "the tensors differ in dtype or device";

  if (x.table.stride(1) != 1) return "a row of the table is not contiguous";
  for (const Tensor* tensor : {&x.out, &x.z, &x.base, &x.output})
    if (!tensor->is_contiguous()) return "a tensor is not contiguous";
  for (const std::optional<Tensor>* tensor : {&x.history, &x.noise, &x.indices, &x.bad_row})
    if (*tensor && !(*tensor)->is_contiguous()) return "a tensor is not contiguous";

  // The kernel reads a block of everything before it writes that block of out and of the written slot.
  const int64_t bytes = x.z.numel() * static_cast<int64_t>(x.z.element_size());
  const Range out = range(x.out);
  const Range history = x.history ? range(*x.history) : Range{};
  const int64_t slot = bytes / components(x.table);
  const Range written = x.write_slot < 0 ? Range{} : Range{history.begin + x.write_slot * slot, slot};
  const bool coupled = components(x.table) > 1;  // then states and predictions lie differently
  for (const Tensor* tensor : {&x.z, &x.base, x.noise ? &*x.noise : &x.z}) {
    const Range input = range(*tensor);
    if (shifted(input, out, bytes) || (coupled ? input.overlaps(written) : shifted(input, written, bytes)))
      return "an input overlaps out or the written slot, shifted";
  }
  const Range output = range(x.output);
  if (output.overlaps(written) || out.overlaps(history)) return "an input overlaps out or the written slot, shifted";
  if (output.overlaps(out) && (coupled || output.begin != out.begin))
    return "an input overlaps out or the written slot, shifted";
  return "";
}

void check(const Arguments& x) {
  STD_TORCH_CHECK(!malformed(x), "linear_step: the arguments do not fit together");
  STD_TORCH_CHECK(!read_row(x.table, x.row).noisy(components(x.table)) || x.noise || x.indices,
                  "linear_step: the row adds noise; give indices or noise");
}

// The call of arguments with elements.
LinearStep step_of(const Arguments& x) {
  LinearStep step;
  step.row = read_row(x.table, x.row);
  step.samples = x.z.size(0);
  step.components = components(x.table);
  step.elements = x.z.numel() / step.samples / step.components;
  step.replicas = static_cast<int>(x.out.size(0) / step.samples);
  step.branches = static_cast<int>(x.output.size(0) / step.samples);
  step.lags = static_cast<int>(x.read_slots.size());
  step.out = x.out.mutable_data_ptr();
  step.z = x.z.const_data_ptr();
  step.base = x.base.const_data_ptr();
  step.output = x.output.const_data_ptr();
  const int64_t bytes = step.samples * step.elements * static_cast<int64_t>(x.z.element_size());
  for (int j = 0; j < step.lags; ++j)
    step.history[j] = static_cast<const char*>(x.history->const_data_ptr()) + x.read_slots[j] * bytes;
  if (x.write_slot >= 0) step.prediction = static_cast<char*>(x.history->mutable_data_ptr()) + x.write_slot * bytes;
  if (x.noise) step.noise = x.noise->const_data_ptr();
  if (x.indices) step.indices = static_cast<const int64_t*>(x.indices->const_data_ptr());
  if (x.bad_row) step.bad_row = static_cast<int32_t*>(x.bad_row->mutable_data_ptr());
  step.seed = static_cast<uint64_t>(x.seed);
  step.step = static_cast<uint32_t>(x.row);

  // What no cache holds until the network reads it had better not push out what one does hold.
  constexpr int64_t kStreamedBytes = 16 << 20;
  step.streamed = (x.z.numel() + x.output.numel() + x.out.numel()) * static_cast<int64_t>(x.z.element_size()) >
                  kStreamedBytes;
  return step;
}

void run(const Arguments& x) {
  if (x.z.numel() == 0) return;
  const LinearStep step = step_of(x);
  const bool makes_noise = step.row.noisy(step.components) && !step.noise;
  run_kernel(TRILEMMA_KERNEL(linear_step), step, x.z, trilemma::blocks(step.samples, step.elements),
             makes_noise ? 16 : 128);
}

void call_reference(const Arguments& x) {
  using torch::stable::detail::from;
  std::array<StableIValue, 13> stack{from(x.out),        from(x.z),          from(x.base), from(x.output), from(x.table),
                                     from(x.row),        from(x.history),    from(x.write_slot),
                                     from(x.read_slots), from(x.seed),       from(x.indices),
                                     from(x.noise),      from(x.bad_row)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("trilemma::linear_step_reference", "", stack.data(), TORCH_ABI_VERSION));
}

void linear_step(Tensor out, Tensor z, Tensor base, Tensor output, Tensor table, int64_t row,
                 std::optional<Tensor> history, int64_t write_slot, std::vector<int64_t> read_slots, int64_t seed,
                 std::optional<Tensor> indices, std::optional<Tensor> noise, std::optional<Tensor> bad_row,
                 std::string backend) {
  const Arguments arguments{out,        z,          base, output,  table, row,    history,
                            write_slot, read_slots, seed, indices, noise, bad_row};
  check(arguments);
  const char* why = backend == "reference" ? "asked for" : why_not(arguments);
  if (!*why) return run(arguments);
  STD_TORCH_CHECK(backend != "native", "TRILEMMA_BACKEND=native, but linear_step cannot run natively: ", why);
  call_reference(arguments);
}

std::string linear_step_why_not_native(Tensor out, Tensor z, Tensor base, Tensor output, Tensor table, int64_t row,
                                       std::optional<Tensor> history, int64_t write_slot,
                                       std::vector<int64_t> read_slots, int64_t seed, std::optional<Tensor> indices,
                                       std::optional<Tensor> noise, std::optional<Tensor> bad_row) {
  const Arguments arguments{out,        z,          base, output,  table, row,    history,
                            write_slot, read_slots, seed, indices, noise, bad_row};
  check(arguments);
  return why_not(arguments);
}

// A step whose row, table and seed lie on the device, for CUDA graphs: a replay reads them anew.
struct OnDevice {
  const Tensor &table, &row, &seed;
};

const char* why_not_replayed([[maybe_unused]] const Arguments& x, [[maybe_unused]] const OnDevice& there) {
#ifdef TRILEMMA_CUDA
  if (there.table.scalar_type() != ScalarType::Float || !is_beside(there.table, x.z) || !there.table.is_contiguous())
    return "the table is not contiguous float32 beside z";
  for (const Tensor* number : {&there.row, &there.seed})
    if (!is_beside(*number, x.z)) return "row or seed is not beside z";
  return why_not(x);
#else
  return "it is for CUDA graphs";
#endif
}

void check_replayed(const Tensor& table, const Tensor& row, const Tensor& seed, bool noise) {
  STD_TORCH_CHECK(table.dim() == 2 && components(table), "linear_step_replay: the arguments do not fit together");
  for (const Tensor* number : {&row, &seed})
    STD_TORCH_CHECK(number->numel() == 1 && number->scalar_type() == ScalarType::Long,
                    "linear_step_replay: row and seed are one int64 each");
  STD_TORCH_CHECK(noise, "linear_step_replay: the row may add noise; give indices or noise");
}

// A table of the same width on the host, which stands for the one that the host cannot read.
Tensor stand_in(const Tensor& table) {
  const std::array<int64_t, 2> sizes{1, table.size(1)};
  return torch::stable::full({sizes.data(), sizes.size()}, 0.0, ScalarType::Double, std::nullopt,
                             torch::stable::Device(torch::headeronly::DeviceType::CPU));
}

void linear_step_replay(Tensor out, Tensor z, Tensor base, Tensor output, Tensor table, Tensor row,
                        std::optional<Tensor> history, int64_t write_slot, std::vector<int64_t> read_slots,
                        Tensor seed, std::optional<Tensor> indices, std::optional<Tensor> noise,
                        std::optional<Tensor> bad_row, std::string backend) {
  check_replayed(table, row, seed, indices || noise);
  const Tensor host = stand_in(table);
  const Arguments arguments{out,        z,          base, output,  host,  0,      history,
                            write_slot, read_slots, 0,    indices, noise, bad_row};
  check(arguments);
  const char* why = backend == "reference" ? "asked for" : why_not_replayed(arguments, {table, row, seed});
  if (*why) {
    STD_TORCH_CHECK(backend != "native", "TRILEMMA_BACKEND=native, but linear_step_replay cannot run natively: ", why);
    using torch::stable::detail::from;
    std::array<StableIValue, 13> stack{from(out),        from(z),    from(base),    from(output), from(table),
                                       from(row),        from(history), from(write_slot), from(read_slots),
                                       from(seed),       from(indices), from(noise), from(bad_row)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("trilemma::linear_step_replay_reference", "", stack.data(), TORCH_ABI_VERSION));
    return;
  }
#ifdef TRILEMMA_CUDA
  if (z.numel() == 0) return;
  const auto number = [](const Tensor& tensor) { return static_cast<const int64_t*>(tensor.const_data_ptr()); };
  const trilemma::cuda::Replay replay{static_cast<const float*>(table.const_data_ptr()), number(row), number(seed)};
  const Here here(z);
  check_launch(trilemma::cuda::linear_step(step_of(arguments), replay, storage(z.scalar_type()), here.stream));
#endif
}

std::string linear_step_replay_why_not_native(Tensor out, Tensor z, Tensor base, Tensor output, Tensor table,
                                              Tensor row, std::optional<Tensor> history, int64_t write_slot,
                                              std::vector<int64_t> read_slots, Tensor seed,
                                              std::optional<Tensor> indices, std::optional<Tensor> noise,
                                              std::optional<Tensor> bad_row) {
  check_replayed(table, row, seed, indices || noise);
  const Tensor host = stand_in(table);
  const Arguments arguments{out,        z,          base, output,  host,  0,      history,
                            write_slot, read_slots, 0,    indices, noise, bad_row};
  check(arguments);
  return why_not_replayed(arguments, {table, row, seed});
}

}  // namespace

#ifndef TRILEMMA_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(trilemma, library) {
  library.def(
      "linear_step_why_not_native(Tensor out, Tensor z, Tensor base, Tensor output, Tensor table, int row, Tensor? "
      "history, int write_slot, int[] read_slots, int seed, Tensor? indices, Tensor? noise, Tensor? bad_row) -> str");
  library.def(
      "linear_step_replay_why_not_native(Tensor out, Tensor z, Tensor base, Tensor output, Tensor table, Tensor row, "
      "Tensor? history, int write_slot, int[] read_slots, Tensor seed, Tensor? indices, Tensor? noise, Tensor? "
      "bad_row) -> str");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(TRILEMMA_LIBRARY, TRILEMMA_DEVICE, library) {
  library.impl("linear_step", TORCH_BOX(&linear_step));
  library.impl("linear_step_why_not_native", TORCH_BOX(&linear_step_why_not_native));
  library.impl("linear_step_replay", TORCH_BOX(&linear_step_replay));
  library.impl("linear_step_replay_why_not_native", TORCH_BOX(&linear_step_replay_why_not_native));
}
