// The noised state and the training target for the CPU. CMake builds this file once an instruction set.

#include "trilemma/perturb.h"

#include "normal.h"
#include "storage.h"
#include "trilemma/linear_step.h"

namespace {

using trilemma::kBlock;
using trilemma::Perturb;

template <class T>
inline void run_blocks(const Perturb& call, int64_t begin, int64_t end) {
  const int64_t per_sample = trilemma::blocks(1, call.elements);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t sample = block / per_sample;
    const int64_t offset = block % per_sample * kBlock;
    const int64_t left = call.elements - offset;
    const int count = static_cast<int>(left < kBlock ? left : kBlock);
    const int64_t at = sample * call.elements + offset;

    float noise[kBlock];
    if (call.noise) {
      const T* given = static_cast<const T*>(call.noise) + at;
      for (int i = 0; i < count; ++i) noise[i] = T::load(given[i]);
    } else {
      Normals(trilemma::sample_counter(call.indices[sample], call.step, trilemma::kPerturbStream),
              trilemma::seed_key(call.seed))
          .fill(offset, count, noise);
    }

    const double* row = call.coefficients + 4 * sample;
    const float alpha = static_cast<float>(row[0]), sigma = static_cast<float>(row[1]);
    const float a = static_cast<float>(row[2]), b = static_cast<float>(row[3]);
    const T* x0 = static_cast<const T*>(call.x0) + at;
    float target[kBlock];
    T* z = static_cast<T*>(call.z) + at;
    for (int i = 0; i < count; ++i) {
      const float clean = T::load(x0[i]);
      target[i] = a * clean + b * noise[i];
      noise[i] = alpha * clean + sigma * noise[i];
    }
    for (int i = 0; i < count; ++i) z[i] = T::round(noise[i]);
    T* out = static_cast<T*>(call.target) + at;
    for (int i = 0; i < count; ++i) out[i] = T::round(target[i]);
  }
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void perturb_float32(const Perturb& call, int64_t begin, int64_t end) { run_blocks<Float32>(call, begin, end); }

void perturb_bfloat16(const Perturb& call, int64_t begin, int64_t end) { run_blocks<BFloat16>(call, begin, end); }

void perturb_float16(const Perturb& call, int64_t begin, int64_t end) { run_blocks<Float16>(call, begin, end); }

}  // namespace trilemma::cpu::TRILEMMA_ISA
