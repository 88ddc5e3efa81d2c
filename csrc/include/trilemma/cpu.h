// The CPU kernels, built once an instruction set, and the choice among them.

#pragma once

#include "trilemma/linear_step.h"

namespace trilemma::cpu {

// Each runs blocks [begin, end) of its work. All instruction sets give the same bits.
struct Kernels {
  const char* isa;
  void (*linear_step_float32)(const LinearStep&, int64_t begin, int64_t end);
  void (*linear_step_bfloat16)(const LinearStep&, int64_t begin, int64_t end);
  void (*normal_float32)(const NormalFill&, int64_t begin, int64_t end);
  void (*normal_bfloat16)(const NormalFill&, int64_t begin, int64_t end);
};

// The kernels that were built, narrowest first; `count` receives how many.
const Kernels* built(int* count);

// Whether this machine can run them.
bool runs_here(const Kernels& kernels);

// The widest that this machine can run.
const Kernels& best();

}  // namespace trilemma::cpu
