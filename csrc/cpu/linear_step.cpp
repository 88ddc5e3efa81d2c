// The fused linear step for the CPU. CMake builds this file once an instruction set, in a namespace of its own.
//
// A block goes through buffers that stay in the first cache: all of it is read before any of it is written, so out
// may be any of the inputs. No contraction to fused multiply-adds: every instruction set rounds alike.

#include "normal.h"
#include "storage.h"
#include "trilemma/step_arithmetic.h"

namespace {

using trilemma::kBlock;
using trilemma::LinearStep;
using trilemma::Row;

// The block's part of a component's noise, which need not begin where a group of normals does.
inline const float* component_noise(const LinearStep& step, int64_t sample, int64_t first, int count, float* buffer) {
  const auto counter = trilemma::sample_counter(step.indices[sample], step.step, trilemma::kStepStream);
  const int lead = static_cast<int>(first % kGroup);
  normals(counter, trilemma::seed_key(step.seed), first - lead, lead + count, buffer);
  return buffer + lead;
}

template <class T, int K>
inline void run_block(const LinearStep& step, int64_t sample, int64_t offset, int count) {
  const Row& row = step.row;
  const int64_t batch = step.samples * step.elements;
  const int64_t at = sample * step.elements + offset;          // in a batch of predictions
  const int64_t state_at = sample * step.elements * K + offset;  // in a batch of states
  const auto prediction_of = [at](const void* tensor) { return static_cast<const T*>(tensor) + at; };
  const auto state_of = [&](const void* tensor, int k) {
    return static_cast<const T*>(tensor) + state_at + k * step.elements;
  };

  float f[kBlock];
  const T* output = prediction_of(step.output);
  for (int i = 0; i < count; ++i) f[i] = row.w[0] * T::load(output[i]);
  for (int g = 1; g < step.branches; ++g) {
    output += batch;
    const float w = row.w[g];
    for (int i = 0; i < count; ++i) f[i] = f[i] + w * T::load(output[i]);
  }

  const T *z[K], *base[K];
  for (int k = 0; k < K; ++k) z[k] = state_of(step.z, k), base[k] = state_of(step.base, k);
  float next[K][kBlock];
  for (int i = 0; i < count; ++i) {
    float state[K], start[K];
    for (int k = 0; k < K; ++k) state[k] = T::load(z[k][i]), start[k] = T::load(base[k][i]);
    f[i] = trilemma::predict<K>(row, state, f[i]);
    for (int k = 0; k < K; ++k) next[k][i] = trilemma::begin_next<K>(row, k, start, f[i]);
  }

  for (int j = 0; j < step.lags; ++j) {
    const T* history = prediction_of(step.history[j]);
    for (int k = 0; k < K; ++k) {
      const float b = row.b[1 + j][k];
      for (int i = 0; i < count; ++i) next[k][i] = next[k][i] + b * T::load(history[i]);
    }
  }

  if (row.noisy(K)) {
    for (int l = 0; l < K; ++l) {
      if (step.noise) {
        const T* noise = state_of(step.noise, l);
        for (int k = 0; k < K; ++k)
          for (int i = 0; i < count; ++i) next[k][i] = next[k][i] + row.c[k * K + l] * T::load(noise[i]);
      } else {
        float buffer[kBlock + 2 * kGroup];
        const float* noise = component_noise(step, sample, l * step.elements + offset, count, buffer);
        for (int k = 0; k < K; ++k)
          for (int i = 0; i < count; ++i) next[k][i] = next[k][i] + row.c[k * K + l] * noise[i];
      }
    }
  }

  if (step.prediction) {
    T* prediction = static_cast<T*>(step.prediction) + at;
    for (int i = 0; i < count; ++i) prediction[i] = T::round(f[i]);
  }
  uint32_t bad = 0;
  for (int k = 0; k < K; ++k) {
    T* out = static_cast<T*>(step.out) + state_at + k * step.elements;
    for (int i = 0; i < count; ++i) {
      const T stored = T::round(next[k][i]);
      bad |= !T::finite(stored);
      out[i] = stored;
    }
    for (int g = 1; g < step.replicas; ++g) {
      out += batch * K;
      for (int i = 0; i < count; ++i) out[i] = T::round(next[k][i]);
    }
  }
  if (bad && step.bad_row && __atomic_load_n(step.bad_row + sample, __ATOMIC_RELAXED) < 0)
    __atomic_store_n(step.bad_row + sample, static_cast<int32_t>(step.step), __ATOMIC_RELAXED);
}

template <class T, int K>
inline void run_blocks(const LinearStep& step, int64_t begin, int64_t end) {
  const int64_t per_sample = trilemma::blocks(1, step.elements);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t offset = block % per_sample * kBlock;
    const int64_t left = step.elements - offset;
    if (left >= kBlock)
      run_block<T, K>(step, block / per_sample, offset, kBlock);
    else
      run_block<T, K>(step, block / per_sample, offset, static_cast<int>(left));
  }
}

template <class T>
inline void run(const LinearStep& step, int64_t begin, int64_t end) {
  step.components == 1 ? run_blocks<T, 1>(step, begin, end) : run_blocks<T, 2>(step, begin, end);
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void linear_step_float32(const LinearStep& step, int64_t begin, int64_t end) { run<Float32>(step, begin, end); }

void linear_step_bfloat16(const LinearStep& step, int64_t begin, int64_t end) { run<BFloat16>(step, begin, end); }

void linear_step_float16(const LinearStep& step, int64_t begin, int64_t end) { run<Float16>(step, begin, end); }

}  // namespace trilemma::cpu::TRILEMMA_ISA
