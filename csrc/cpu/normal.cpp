// Keyed standard normals for the CPU. CMake builds this file once an instruction set, in a namespace of its own.

#include "normal.h"

#include <type_traits>

#include "storage.h"
#include "trilemma/linear_step.h"

namespace {

using trilemma::kBlock;
using trilemma::NormalFill;

template <class T>
inline void fill_blocks(const NormalFill& fill, int64_t begin, int64_t end) {
  const int64_t per_sample = trilemma::blocks(1, fill.elements);
  while (begin < end) {  // a sample's blocks
    const int64_t sample = begin / per_sample, first = begin % per_sample;
    const int64_t last = first + (end - begin < per_sample - first ? end - begin : per_sample - first);
    const Normals normals(trilemma::sample_counter(fill.indices[sample], fill.step, fill.stream),
                          trilemma::seed_key(fill.seed));
    begin += last - first;
    T* out = static_cast<T*>(fill.out) + sample * fill.elements;
    const int64_t stop = last * kBlock < fill.elements ? last * kBlock : fill.elements;
    int64_t at = first * kBlock;
    if constexpr (std::is_same_v<T, Float32>) {
      const int64_t whole = (stop - at) / kGroup * kGroup;
      normals.fill(at, whole, reinterpret_cast<float*>(out + at));
      at += whole;
    }
    for (; at < stop; at += kGroup) {
      float noise[kGroup];
      normals.fill(at, kGroup, noise);
      const int64_t count = stop - at < kGroup ? stop - at : kGroup;
      for (int64_t i = 0; i < count; ++i) out[at + i] = T::round(noise[i]);
    }
  }
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void normal_float32(const NormalFill& fill, int64_t begin, int64_t end) { fill_blocks<Float32>(fill, begin, end); }

void normal_bfloat16(const NormalFill& fill, int64_t begin, int64_t end) { fill_blocks<BFloat16>(fill, begin, end); }

void normal_float16(const NormalFill& fill, int64_t begin, int64_t end) { fill_blocks<Float16>(fill, begin, end); }

}  // namespace trilemma::cpu::TRILEMMA_ISA
