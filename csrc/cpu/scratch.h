// Working memory of a thread, kept from call to call. Internal linkage: compiled once an instruction set.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace {

struct Free {
  void operator()(float* p) const { std::free(p); }
};

// At least `count` floats on a cache line's boundary, with undefined content.
inline float* thread_scratch(int64_t count) {
  thread_local std::unique_ptr<float, Free> kept;
  thread_local int64_t size = 0;
  if (count > size) {
    kept.reset();
    size = 0;
    const size_t bytes = (static_cast<size_t>(count) * sizeof(float) + 63) / 64 * 64;
    kept.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    if (!kept) throw std::bad_alloc();
    size = count;
  }
  return kept.get();
}

}  // namespace
