// Which of the built instruction sets this machine runs, found once.

#include <cstring>

#include "trilemma/cpu.h"

namespace trilemma::cpu {

#define TRILEMMA_DECLARE(isa)                                              \
  namespace isa {                                                          \
  void linear_step_float32(const LinearStep&, int64_t begin, int64_t end); \
  void linear_step_bfloat16(const LinearStep&, int64_t, int64_t);          \
  void normal_float32(const NormalFill&, int64_t begin, int64_t end);      \
  void normal_bfloat16(const NormalFill&, int64_t, int64_t);               \
  }
#define TRILEMMA_KERNELS(isa, name) \
  {name, isa::linear_step_float32, isa::linear_step_bfloat16, isa::normal_float32, isa::normal_bfloat16}

TRILEMMA_DECLARE(baseline)
#ifdef TRILEMMA_X86_64_LEVELS
TRILEMMA_DECLARE(x86_64_v3)
TRILEMMA_DECLARE(x86_64_v4)
#endif

namespace {

constexpr Kernels kBuilt[] = {
    TRILEMMA_KERNELS(baseline, "baseline"),
#ifdef TRILEMMA_X86_64_LEVELS
    TRILEMMA_KERNELS(x86_64_v3, "x86-64-v3"),
    TRILEMMA_KERNELS(x86_64_v4, "x86-64-v4"),
#endif
};
constexpr int kCount = sizeof(kBuilt) / sizeof(kBuilt[0]);

}  // namespace

const Kernels* built(int* count) {
  *count = kCount;
  return kBuilt;
}

bool runs_here([[maybe_unused]] const Kernels& kernels) {
#ifdef TRILEMMA_X86_64_LEVELS
  if (!std::strcmp(kernels.isa, "x86-64-v3")) return __builtin_cpu_supports("x86-64-v3");
  if (!std::strcmp(kernels.isa, "x86-64-v4")) return __builtin_cpu_supports("x86-64-v4");
#endif
  return true;
}

const Kernels& best() {
  static const Kernels& chosen = [] () -> const Kernels& {
    int i = kCount - 1;
    while (i > 0 && !runs_here(kBuilt[i])) --i;
    return kBuilt[i];
  }();
  return chosen;
}

}  // namespace trilemma::cpu
