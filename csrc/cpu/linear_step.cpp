// The fused linear step for the CPU. CMake builds this file once an instruction set, in a namespace of its own.
//
// A block goes through buffers that stay in the first cache: all of it is read before any of it is written, so out
// may be any of the inputs. No contraction to fused multiply-adds: every instruction set rounds alike.

#include "normal.h"
#include "storage.h"
#include "stores.h"
#include "trilemma/step_arithmetic.h"

namespace {

using trilemma::kBlock;
using trilemma::LinearStep;
using trilemma::Row;

// The block's part of a component's noise, which need not begin where a group of normals does.
inline const float* component_noise(const LinearStep& step, int64_t sample, int64_t first, int count, float* buffer) {
  const auto counter = trilemma::sample_counter(step.indices[sample], step.step, trilemma::kStepStream);
  const int lead = static_cast<int>(first % kGroup);
  Normals(counter, trilemma::seed_key(step.seed)).fill(first - lead, lead + count, buffer);
  return buffer + lead;
}

inline void note_bad(const LinearStep& step, int64_t sample) {
  if (step.bad_row && __atomic_load_n(step.bad_row + sample, __ATOMIC_RELAXED) < 0)
    __atomic_store_n(step.bad_row + sample, static_cast<int32_t>(step.step), __ATOMIC_RELAXED);
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

  float f[kBlock] = {};
  const T* output = prediction_of(step.output);
  for (int g = 0; g < step.branches; ++g, output += batch) {
    const float w = row.w[g];
    if (g == 0)
      for (int i = 0; i < count; ++i) f[i] = w * T::load(output[i]);
    else
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

  for (int n = 0; n < step.others; ++n) {
    for (int l = 0; l < K; ++l) {
      const T* other = state_of(step.other[n], l);
      for (int k = 0; k < K; ++k) {
        const float d = row.d[n][k * K + l];
        for (int i = 0; i < count; ++i) next[k][i] = next[k][i] + d * T::load(other[i]);
      }
    }
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
    alignas(kLine) T stored[kBlock];
    for (int i = 0; i < count; ++i) stored[i] = T::round(next[k][i]);
    for (int i = 0; i < count; ++i) bad |= overflows<T>(next[k][i]);
    for (int g = 0; g < step.replicas; ++g, out += batch * K) {
      if (step.streamed)
        stream_lines(out, stored, count * static_cast<int64_t>(sizeof(T)));
      else
        for (int i = 0; i < count; ++i) out[i] = stored[i];
    }
  }
  if (bad) note_bad(step, sample);
}

// The same for the steps that samplers take most, in one loop: one component, G branches and as many replicas.
template <class T, int G, int kLags, bool kNoisy, bool kKeeps>
inline void run_common_block(const LinearStep& step, int64_t sample, int64_t offset, int count) {
  const Row& row = step.row;
  const int64_t batch = step.samples * step.elements;
  const int64_t at = sample * step.elements + offset;
  const auto input = [at](const void* tensor) { return static_cast<const T*>(tensor) + at; };

  float buffer[kNoisy ? kBlock + 2 * kGroup : 1];
  const float* noise = buffer;
  if constexpr (kNoisy) {
    if (step.noise) {
      const T* given = input(step.noise);
      for (int i = 0; i < count; ++i) buffer[i] = T::load(given[i]);
    } else {
      noise = component_noise(step, sample, offset, count, buffer);
    }
  }

  const T *z = input(step.z), *base = input(step.base), *output = input(step.output);
  const T* other = G > 1 ? output + batch : output;
  const T* lag = kLags ? input(step.history[0]) : output;
  T* out = static_cast<T*>(step.out) + at;
  alignas(kLine) T block[kBlock];
  T* first = step.streamed ? block : out;
  T* second = step.streamed || G == 1 ? first : out + batch;
  T* kept = kKeeps ? static_cast<T*>(step.prediction) + at : nullptr;
  const float w0 = row.w[0], w1 = row.w[1], p = row.p[0], q = row.q, r = row.r[0], s = row.s, a = row.a[0];
  const float b0 = row.b[0][0], b1 = row.b[1][0], c = row.c[0], high = row.clip, low = -row.clip;
  uint32_t bad = 0;
#pragma GCC ivdep  // inputs and outputs share memory only element for element
  for (int i = 0; i < count; ++i) {
    float f = w0 * T::load(output[i]);
    if constexpr (G > 1) f = f + w1 * T::load(other[i]);
    const float state = T::load(z[i]);
    float u = p * state + q * f;
    u = u < low ? low : u;
    u = u > high ? high : u;
    f = r * state + s * u;
    float next = a * T::load(base[i]) + b0 * f;
    if constexpr (kLags > 0) next = next + b1 * T::load(lag[i]);
    if constexpr (kNoisy) next = next + c * noise[i];
    bad |= overflows<T>(next);
    if constexpr (kKeeps) kept[i] = T::round(f);
    first[i] = T::round(next);
    if constexpr (G > 1) second[i] = T::round(next);
  }
  if (step.streamed)
    for (int g = 0; g < G; ++g) stream_lines(out + g * batch, block, count * static_cast<int64_t>(sizeof(T)));
  if (bad) note_bad(step, sample);
}

using Block = void (*)(const LinearStep&, int64_t sample, int64_t offset, int count);

template <class T, int G, int kLags>
inline Block common_block(bool noisy, bool keeps) {
  if (noisy) return keeps ? run_common_block<T, G, kLags, true, true> : run_common_block<T, G, kLags, true, false>;
  return keeps ? run_common_block<T, G, kLags, false, true> : run_common_block<T, G, kLags, false, false>;
}

template <class T>
inline Block block_for(const LinearStep& step) {
  if (step.components > 1) return run_block<T, 2>;
  if (step.others) return run_block<T, 1>;
  const bool noisy = step.row.noisy(1), keeps = step.prediction;
  if (step.branches == 1 && step.replicas == 1 && step.lags == 0) return common_block<T, 1, 0>(noisy, keeps);
  if (step.branches == 1 && step.replicas == 1 && step.lags == 1) return common_block<T, 1, 1>(noisy, keeps);
  if (step.branches == 2 && step.replicas == 2 && step.lags == 0) return common_block<T, 2, 0>(noisy, keeps);
  if (step.branches == 2 && step.replicas == 2 && step.lags == 1) return common_block<T, 2, 1>(noisy, keeps);
  return run_block<T, 1>;
}

template <class T>
inline void run(const LinearStep& step, int64_t begin, int64_t end) {
  const Block run_one = block_for<T>(step);
  const int64_t per_sample = trilemma::blocks(1, step.elements);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t offset = block % per_sample * kBlock;
    const int64_t left = step.elements - offset;
    run_one(step, block / per_sample, offset, static_cast<int>(left < kBlock ? left : kBlock));
  }
  if (step.streamed) end_streaming();
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void linear_step_float32(const LinearStep& step, int64_t begin, int64_t end) { run<Float32>(step, begin, end); }

void linear_step_bfloat16(const LinearStep& step, int64_t begin, int64_t end) { run<BFloat16>(step, begin, end); }

void linear_step_float16(const LinearStep& step, int64_t begin, int64_t end) { run<Float16>(step, begin, end); }

}  // namespace trilemma::cpu::TRILEMMA_ISA
