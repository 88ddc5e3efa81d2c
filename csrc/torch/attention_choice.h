// Whether the native kernel was measured to beat PyTorch's, by the record that benchmarks/attention.py writes.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

#include "trilemma/cpu.h"

namespace trilemma {

enum Pass : int { kForward, kBackward, kPasses };

// A measured cell: at this size, how many times as long PyTorch's best way takes as the native kernel.
struct Measured {
  const char* isa;
  Pass pass;
  cpu::Storage storage;
  bool depth_contiguous;
  int tokens, depth;
  double ratio;
};

inline constexpr Measured kMeasured[] = {
#include "attention_record.inc"
};

// The record of an instruction set, or of a GPU's architecture, spread over powers of two: each size is
// decided by the cell nearest to it.
class Choice {
 public:
  explicit Choice(const char* isa) : isa_(isa) {
    for (const Measured& cell : kMeasured) known_ = known_ || here(cell);
    for (int pass = 0; pass < kPasses; ++pass)
      for (int storage = 0; storage < cpu::kStorages; ++storage)
        for (int contiguous = 0; contiguous < 2; ++contiguous)
          for (int tokens = 0; tokens < kTokens; ++tokens)
            for (int depth = 0; depth < kDepths; ++depth)
              wins_[pass][storage][contiguous][tokens][depth] = nearest(pass, storage, contiguous, tokens, depth) >= least(pass, tokens);
  }

  bool known() const { return known_; }

  // "" where the native kernel wins.
  const char* why_not(Pass pass, cpu::Storage storage, bool depth_contiguous, int64_t queries, int64_t keys,
                      int64_t depth) const {
    if (!known_) return "it was not measured against PyTorch on this instruction set";
    const int tokens = whole(0.5 * std::log2(static_cast<double>(queries) * static_cast<double>(keys)), kTokens);
    const bool wins = wins_[pass][storage][depth_contiguous][tokens][whole(std::log2(depth), kDepths)];
    return wins ? "" : "PyTorch was measured to be faster at this size";
  }

 private:
  static constexpr int kTokens = 20, kDepths = 8;

  // The ratio from which on the native kernel is taken. Of so few tokens, leaving them to PyTorch from in here takes as
  // long as the work and makes up for less than twice the time.
  static double least(int pass, int tokens) { return pass == kForward && tokens <= 5 ? 0.5 : 1; }

  static int whole(double x, int end) { return x >= 0 ? std::min(static_cast<int>(x + 0.5), end - 1) : 0; }

  bool here(const Measured& cell) const { return isa_ == cell.isa; }

  double nearest(int pass, int storage, int contiguous, int tokens, int depth) const {
    double least = HUGE_VAL, ratio = 0;
    for (const Measured& cell : kMeasured) {
      if (!here(cell) || cell.pass != pass || cell.storage != storage || cell.depth_contiguous != contiguous) continue;
      const double distance = std::abs(std::log2(cell.tokens) - tokens) + std::abs(std::log2(cell.depth) - depth);
      if (distance < least) least = distance, ratio = cell.ratio;
    }
    return ratio;
  }

  std::string isa_;
  bool known_ = false;
  bool wins_[kPasses][cpu::kStorages][2][kTokens][kDepths];
};

inline const Choice& choice() {
  static const Choice made(cpu::best().isa);
  return made;
}

}  // namespace trilemma
