// trilemma::linear_step on the library's device: the native kernel where it can, the reference twin where it cannot.

#include "linear_step_arguments.h"
#include "linear_step_choice.h"

namespace {

void run(const Arguments& x) {
  if (x.z.numel() == 0) return;
  const LinearStep step = step_of(x);
  const bool makes_noise = step.row.noisy(step.components) && !step.noise;
  run_kernel(TRILEMMA_KERNEL(linear_step), step, x.z, trilemma::blocks(step.samples, step.elements),
             makes_noise ? 16 : 128);
}

void call_reference(const Arguments& x) {
  using torch::stable::detail::from;
  std::array<StableIValue, 14> stack{from(x.out),        from(x.z),       from(x.base),       from(x.output),
                                     from(x.table),      from(x.row),     from(x.history),    from(x.write_slot),
                                     from(x.read_slots), from(x.seed),    from(x.indices),    from(x.noise),
                                     from(x.bad_row),    from(x.others)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("trilemma::linear_step_reference", "", stack.data(), TORCH_ABI_VERSION));
}

void linear_step(Tensor out, Tensor z, Tensor base, std::optional<Tensor> output, Tensor table, int64_t row,
                 std::optional<Tensor> history, int64_t write_slot, std::vector<int64_t> read_slots, int64_t seed,
                 std::optional<Tensor> indices, std::optional<Tensor> noise, std::optional<Tensor> bad_row,
                 std::vector<Tensor> others, std::string backend) {
  const Arguments arguments{out,        z,          base, output,  table, row,    history,
                            write_slot, read_slots, seed, indices, noise, bad_row, others};
  check(arguments);
  const char* why = backend == "reference" ? "asked for" : why_not(arguments);
  if (!*why) return run(arguments);
  STD_TORCH_CHECK(backend != "native", "TRILEMMA_BACKEND=native, but linear_step cannot run natively: ", why);
  call_reference(arguments);
}

std::string linear_step_why_not_native(Tensor out, Tensor z, Tensor base, std::optional<Tensor> output, Tensor table, int64_t row,
                                       std::optional<Tensor> history, int64_t write_slot,
                                       std::vector<int64_t> read_slots, int64_t seed, std::optional<Tensor> indices,
                                       std::optional<Tensor> noise, std::optional<Tensor> bad_row,
                                       std::vector<Tensor> others) {
  const Arguments arguments{out,        z,          base, output,  table, row,    history,
                            write_slot, read_slots, seed, indices, noise, bad_row, others};
  check(arguments);
  return why_not(arguments);
}

void linear_step_replay(Tensor out, Tensor z, Tensor base, std::optional<Tensor> output, Tensor table, Tensor row,
                        std::optional<Tensor> history, int64_t write_slot, std::vector<int64_t> read_slots,
                        Tensor seed, std::optional<Tensor> indices, std::optional<Tensor> noise,
                        std::optional<Tensor> bad_row, std::vector<Tensor> others, std::string backend) {
  check_replayed(table, row, seed, indices || noise);
  const Tensor host = stand_in(table);
  const Arguments arguments{out,        z,          base, output,  host,  0,      history,
                            write_slot, read_slots, 0,    indices, noise, bad_row, others};
  check(arguments);
  const char* why = backend == "reference" ? "asked for" : why_not_replayed(arguments, {table, row, seed});
  if (*why) {
    STD_TORCH_CHECK(backend != "native", "TRILEMMA_BACKEND=native, but linear_step_replay cannot run natively: ", why);
    using torch::stable::detail::from;
    std::array<StableIValue, 14> stack{from(out),        from(z),       from(base),       from(output), from(table),
                                       from(row),        from(history), from(write_slot), from(read_slots),
                                       from(seed),       from(indices), from(noise),      from(bad_row),
                                       from(others)};
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

std::string linear_step_replay_why_not_native(Tensor out, Tensor z, Tensor base, std::optional<Tensor> output, Tensor table,
                                              Tensor row, std::optional<Tensor> history, int64_t write_slot,
                                              std::vector<int64_t> read_slots, Tensor seed,
                                              std::optional<Tensor> indices, std::optional<Tensor> noise,
                                              std::optional<Tensor> bad_row, std::vector<Tensor> others) {
  check_replayed(table, row, seed, indices || noise);
  const Tensor host = stand_in(table);
  const Arguments arguments{out,        z,          base, output,  host,  0,      history,
                            write_slot, read_slots, 0,    indices, noise, bad_row, others};
  check(arguments);
  return why_not_replayed(arguments, {table, row, seed});
}

}  // namespace

#ifndef TRILEMMA_CUDA
STABLE_TORCH_LIBRARY_FRAGMENT(trilemma, library) {
  library.def(
      "linear_step_why_not_native(Tensor out, Tensor z, Tensor base, Tensor? output, Tensor table, int row, Tensor? "
      "history, int write_slot, int[] read_slots, int seed, Tensor? indices, Tensor? noise, Tensor? bad_row, "
      "Tensor[] others) -> str");
  library.def(
      "linear_step_replay_why_not_native(Tensor out, Tensor z, Tensor base, Tensor? output, Tensor table, Tensor row, "
      "Tensor? history, int write_slot, int[] read_slots, Tensor seed, Tensor? indices, Tensor? noise, Tensor? "
      "bad_row, Tensor[] others) -> str");
}
#endif

STABLE_TORCH_LIBRARY_IMPL(TRILEMMA_LIBRARY, TRILEMMA_DEVICE, library) {
  library.impl("linear_step", TORCH_BOX(&linear_step));
  library.impl("linear_step_why_not_native", TORCH_BOX(&linear_step_why_not_native));
  library.impl("linear_step_replay", TORCH_BOX(&linear_step_replay));
  library.impl("linear_step_replay_why_not_native", TORCH_BOX(&linear_step_replay_why_not_native));
}
