// The fused linear step for the CPU. CMake builds this file once an instruction set, in a namespace of its own.
//
// A block goes through buffers that stay in the first cache: all of it is read before any of it is written, so out
// may be any of the inputs. No contraction to fused multiply-adds: every instruction set rounds alike.

#include "normal.h"
#include "storage.h"
#include "trilemma/linear_step.h"

namespace {

using trilemma::kBlock;
using trilemma::LinearStep;
using trilemma::Row;

template <class T>
inline void run_block(const LinearStep& step, int64_t sample, int64_t offset, int count) {
  const Row& row = step.row;
  const int64_t at = sample * step.elements + offset;
  const int64_t batch = step.samples * step.elements;
  const auto input = [at](const void* tensor) { return static_cast<const T*>(tensor) + at; };

  float f[kBlock];
  const T* output = input(step.output);
  for (int i = 0; i < count; ++i) f[i] = row.w[0] * T::load(output[i]);
  for (int g = 1; g < step.branches; ++g) {
    output += batch;
    const float w = row.w[g];
    for (int i = 0; i < count; ++i) f[i] = f[i] + w * T::load(output[i]);
  }

  float next[kBlock];
  const T* z = input(step.z);
  const T* base = input(step.base);
  const float a = row.a, b0 = row.b[0], p = row.p, q = row.q, r = row.r, s = row.s;
  const float high = row.clip, low = -row.clip;
  for (int i = 0; i < count; ++i) {
    const float state = T::load(z[i]);
    float u = p * state + q * f[i];
    u = u < low ? low : u;  // comparisons, not fmin and fmax: NaN stays
    u = u > high ? high : u;
    f[i] = r * state + s * u;
    next[i] = a * T::load(base[i]) + b0 * f[i];
  }

  for (int j = 0; j < step.lags; ++j) {
    const T* history = input(step.history[j]);
    const float b = row.b[1 + j];
    for (int i = 0; i < count; ++i) next[i] = next[i] + b * T::load(history[i]);
  }

  if (row.c != 0.0f) {
    const float c = row.c;
    if (step.noise) {
      const T* noise = input(step.noise);
      for (int i = 0; i < count; ++i) next[i] = next[i] + c * T::load(noise[i]);
    } else {
      float noise[kBlock];
      const auto counter = trilemma::sample_counter(step.indices[sample], step.step, trilemma::kStepStream);
      normals(counter, trilemma::seed_key(step.seed), offset, count, noise);
      for (int i = 0; i < count; ++i) next[i] = next[i] + c * noise[i];
    }
  }

  if (step.prediction) {
    T* prediction = static_cast<T*>(step.prediction) + at;
    for (int i = 0; i < count; ++i) prediction[i] = T::round(f[i]);
  }
  T* out = static_cast<T*>(step.out) + at;
  uint32_t bad = 0;
  for (int i = 0; i < count; ++i) {
    const T stored = T::round(next[i]);
    bad |= !T::finite(stored);
    out[i] = stored;
  }
  for (int g = 1; g < step.replicas; ++g) {
    out += batch;
    for (int i = 0; i < count; ++i) out[i] = T::round(next[i]);
  }
  if (bad && step.bad_row && __atomic_load_n(step.bad_row + sample, __ATOMIC_RELAXED) < 0)
    __atomic_store_n(step.bad_row + sample, static_cast<int32_t>(step.step), __ATOMIC_RELAXED);
}

template <class T>
inline void run_blocks(const LinearStep& step, int64_t begin, int64_t end) {
  const int64_t per_sample = trilemma::blocks(1, step.elements);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t offset = block % per_sample * kBlock;
    const int64_t left = step.elements - offset;
    if (left >= kBlock)
      run_block<T>(step, block / per_sample, offset, kBlock);
    else
      run_block<T>(step, block / per_sample, offset, static_cast<int>(left));
  }
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void linear_step_float32(const LinearStep& step, int64_t begin, int64_t end) { run_blocks<Float32>(step, begin, end); }

void linear_step_bfloat16(const LinearStep& step, int64_t begin, int64_t end) {
  run_blocks<BFloat16>(step, begin, end);
}

}  // namespace trilemma::cpu::TRILEMMA_ISA
