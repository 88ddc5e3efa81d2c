// Which calls are left to PyTorch: tables that core/trilemma/ops/choice makes of a record and hands over.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>

#include "trilemma/cpu.h"

namespace trilemma {

// A way for each element type, each of two memory layouts, and powers of two of two sizes. It may be written while
// others read it.
class Choice {
 public:
  static constexpr int kLayouts = 2, kSizes = 32;
  static constexpr int64_t kCells = cpu::kStorages * kLayouts * kSizes * kSizes;

  void take(const uint8_t* ways) {
    for (int64_t i = 0; i < kCells; ++i) ways_[i].store(ways[i], std::memory_order_relaxed);
  }

  // "" where the native kernel is taken. The sizes are given by their binary logarithms.
  const char* why_not(cpu::Storage storage, int layout, double first, double second) const {
    const int64_t cell = ((int64_t{storage} * kLayouts + layout) * kSizes + power(first)) * kSizes + power(second);
    switch (ways_[cell].load(std::memory_order_relaxed)) {
      case kNative: return "";
      case kPyTorch: return "PyTorch was measured to be faster at this size";
      default: return "it was not measured against PyTorch on this instruction set";
    }
  }

 private:
  // As `Way` in core/trilemma/ops/choice/ways.py; the last until Python has handed a table over.
  enum : uint8_t { kNative = 1, kPyTorch = 2 };

  static int power(double log) { return log > 0 ? std::min(static_cast<int>(log + 0.5), kSizes - 1) : 0; }

  std::atomic<uint8_t> ways_[kCells] = {};
};

// The operators that choose in here.
struct Choices {
  Choice attention, attention_backward;

  Choice* of(const std::string& name) {
    if (name == "attention") return &attention;
    if (name == "attention_backward") return &attention_backward;
    return nullptr;
  }
};

Choices& choices();

}  // namespace trilemma
