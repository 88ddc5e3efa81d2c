// CUDA's execution model on the CPU, as far as our kernels use it: their sources compile against this in place of the
// toolkit's header and run, a block after the other, a fiber a thread. Fibers take turns only where threads meet, in an
// order that set_order shuffles: a kernel whose result depends on that order lacks a barrier.

#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ __attribute__((always_inline)) inline
#define __grid_constant__
#define __shared__ static
#define __launch_bounds__(...)

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

inline const char* cudaGetErrorString(cudaError_t) { return "an emulated error"; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
// One multiprocessor: grids stay small and stride.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = 1, cudaSuccess; }

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

constexpr unsigned kMostThreads = 1024;
constexpr size_t kStack = 256 << 10;

enum class State { kReady, kAtBlock, kAtWarp, kDone };

struct Fiber {
  ucontext_t context;
  State state = State::kDone;
};

struct Block {
  Fiber fibers[kMostThreads];
  ucontext_t scheduler;
  unsigned threads = 0, running = 0;
  uint64_t words[kMostThreads] = {};  // what threads show each other
  std::function<void()> body;
  char* stacks = static_cast<char*>(
      mmap(nullptr, kMostThreads * kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
};

inline Block block;
inline uint64_t order = 0;  // 0: in order of the thread index

inline void start() {
  block.body();
  block.fibers[block.running].state = State::kDone;
  swapcontext(&block.fibers[block.running].context, &block.scheduler);
}

inline void meet(State state) {
  Fiber& fiber = block.fibers[block.running];
  fiber.state = state;
  swapcontext(&fiber.context, &block.scheduler);
}

// Releases those of threads [begin, end) that wait in `state`, if none of them still runs or waits elsewhere.
inline bool release(unsigned begin, unsigned end, State state) {
  bool any = false;
  for (unsigned t = begin; t < end; ++t) {
    if (block.fibers[t].state == state) any = true;
    else if (block.fibers[t].state != State::kDone) return false;
  }
  for (unsigned t = begin; any && t < end; ++t)
    if (block.fibers[t].state == state) block.fibers[t].state = State::kReady;
  return any;
}

inline void run_block(unsigned threads) {
  block.threads = threads;
  std::vector<unsigned> turns(threads);
  for (unsigned t = 0; t < threads; ++t) {
    turns[t] = t;
    Fiber& fiber = block.fibers[t];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = block.stacks + t * kStack;
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, start, 0);
    fiber.state = State::kReady;
  }
  for (;;) {
    for (unsigned i = threads; order && i > 1; --i) {
      order = order * 6364136223846793005u + 1442695040888963407u;
      std::swap(turns[i - 1], turns[(order >> 33) % i]);
    }
    bool moved = false;
    for (const unsigned t : turns) {
      if (block.fibers[t].state != State::kReady) continue;
      block.running = t;
      threadIdx.x = t;
      swapcontext(&block.scheduler, &block.fibers[t].context);
      moved = true;
    }
    for (unsigned warp = 0; warp < threads; warp += 32)
      moved = release(warp, warp + 32 < threads ? warp + 32 : threads, State::kAtWarp) || moved;
    moved = release(0, threads, State::kAtBlock) || moved;
    if (!moved) break;
  }
  for (unsigned t = 0; t < threads; ++t) {
    if (block.fibers[t].state == State::kDone) continue;
    std::fprintf(stderr, "thread %u of block %u waits where others never come\n", t, blockIdx.x);
    std::abort();
  }
}

template <class Value>
Value exchange(Value value, unsigned from) {
  static_assert(sizeof(Value) <= sizeof(uint64_t));
  std::memcpy(&block.words[block.running], &value, sizeof value);
  meet(State::kAtWarp);
  std::memcpy(&value, &block.words[from], sizeof value);
  meet(State::kAtWarp);
  return value;
}

// Calls `use` with a function that gives what each lane of the warp brought.
template <class Value, class Use>
void share(const Value& value, const Use& use) {
  const unsigned first = block.running / 32 * 32;
  block.words[block.running] = reinterpret_cast<uint64_t>(&value);
  meet(State::kAtWarp);
  use([&](unsigned lane) -> const Value& { return *reinterpret_cast<const Value*>(block.words[first + lane]); });
  meet(State::kAtWarp);
}

}  // namespace emulator

inline void __syncthreads() { emulator::meet(emulator::State::kAtBlock); }
inline void __syncwarp() { emulator::meet(emulator::State::kAtWarp); }

inline int __syncthreads_or(int predicate) {
  emulator::block.words[emulator::block.running] = predicate != 0;
  __syncthreads();
  int any = 0;
  for (unsigned t = 0; t < emulator::block.threads; ++t) any |= static_cast<int>(emulator::block.words[t]);
  __syncthreads();
  return any;
}

template <class Value>
Value __shfl_xor_sync(unsigned, Value value, int mask) {
  return emulator::exchange(value, emulator::block.running ^ static_cast<unsigned>(mask));
}

template <class Value>
Value __shfl_sync(unsigned, Value value, int lane) {
  return emulator::exchange(value, emulator::block.running / 32 * 32 + static_cast<unsigned>(lane));
}

template <class Value>
Value __shfl_up_sync(unsigned, Value value, unsigned distance) {
  const unsigned thread = emulator::block.running;
  return emulator::exchange(value, thread % 32 < distance ? thread : thread - distance);
}

template <class Value>
Value atomicAdd(Value* at, Value value) {
  const Value before = *at;
  *at += value;
  return before;
}

template <class Value>
Value atomicMin(Value* at, Value value) {
  const Value before = *at;
  if (value < before) *at = value;
  return before;
}

inline uint32_t __float_as_uint(float value) { return __builtin_bit_cast(uint32_t, value); }
inline float __uint_as_float(uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline double __longlong_as_double(long long bits) { return __builtin_bit_cast(double, bits); }
inline float rsqrtf(float value) { return 1.0f / std::sqrt(value); }

template <class... Parameters>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Parameters... arguments) {
  const dim3 grid = config->gridDim, threads = config->blockDim;
  if (!grid.x || !grid.y || grid.y > 65535 || !threads.x || threads.x > emulator::kMostThreads)
    return cudaErrorInvalidConfiguration;
  gridDim = grid;
  blockDim = threads;
  emulator::block.body = [&] { kernel(arguments...); };
  for (unsigned y = 0; y < grid.y; ++y)
    for (unsigned x = 0; x < grid.x; ++x) {
      blockIdx = dim3(x, y);
      emulator::run_block(threads.x);
    }
  return cudaSuccess;
}

extern "C" __attribute__((visibility("default"), used)) inline void set_order(uint64_t seed) { emulator::order = seed; }
