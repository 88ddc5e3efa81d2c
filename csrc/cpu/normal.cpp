// Keyed standard normals for the CPU. CMake builds this file once an instruction set, in a namespace of its own.

#include "normal.h"

#include "storage.h"
#include "trilemma/linear_step.h"

namespace {

using trilemma::kBlock;
using trilemma::NormalFill;

template <class T>
inline void fill_blocks(const NormalFill& fill, int64_t begin, int64_t end) {
  const int64_t per_sample = trilemma::blocks(1, fill.elements);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t sample = block / per_sample;
    const int64_t offset = block % per_sample * kBlock;
    const int64_t left = fill.elements - offset;
    const int count = static_cast<int>(left < kBlock ? left : kBlock);
    float noise[kBlock];
    normals(trilemma::sample_counter(fill.indices[sample], fill.step, fill.stream), trilemma::seed_key(fill.seed),
            offset, count, noise);
    T* out = static_cast<T*>(fill.out) + sample * fill.elements + offset;
    for (int i = 0; i < count; ++i) out[i] = T::round(noise[i]);
  }
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void normal_float32(const NormalFill& fill, int64_t begin, int64_t end) { fill_blocks<Float32>(fill, begin, end); }

void normal_bfloat16(const NormalFill& fill, int64_t begin, int64_t end) { fill_blocks<BFloat16>(fill, begin, end); }

void normal_float16(const NormalFill& fill, int64_t begin, int64_t end) { fill_blocks<Float16>(fill, begin, end); }

}  // namespace trilemma::cpu::TRILEMMA_ISA
