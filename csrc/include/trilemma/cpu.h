// The CPU kernels, built once an instruction set, and the choice among them.

#pragma once

#include "trilemma/attention.h"
#include "trilemma/conv3x3.h"
#include "trilemma/dynamic_threshold.h"
#include "trilemma/glu.h"
#include "trilemma/group_norm.h"
#include "trilemma/layer_norm.h"
#include "trilemma/linear_step.h"
#include "trilemma/perturb.h"

namespace trilemma::cpu {

// The element types as they lie in memory; an array over types is in this order.
enum Storage : int { kFloat32, kBFloat16, kFloat16, kStorages };

// A kernel runs blocks [begin, end) of its work.
template <class Arguments>
using Kernel = void (*)(const Arguments&, int64_t begin, int64_t end);

// One instruction set's kernels, an entry an element type. All instruction sets give the same bits, but for group_norm,
// layer_norm, glu, attention and conv3x3, which agree to rounding: they add in another order, fuse multiplications with
// additions or contract pairs of bfloat16 where they can.
struct Kernels {
  const char* isa;
  Kernel<LinearStep> linear_step[kStorages];
  Kernel<NormalFill> normal[kStorages];
  Kernel<Perturb> perturb[kStorages];
  Kernel<DynamicThreshold> dynamic_threshold[kStorages];  // of whole samples
  Kernel<GroupNorm> group_norm[kStorages];                // blocks and bits: see GroupNorm
  Kernel<GroupNorm> group_norm_backward[kStorages];
  Kernel<LayerNorm> layer_norm[kStorages];                // blocks: see LayerNorm
  Kernel<LayerNorm> layer_norm_backward[kStorages];
  Kernel<Glu> glu[kStorages];  // of rows
  Kernel<Glu> glu_backward[kStorages];
  Kernel<Attention> attention[kStorages];
  Kernel<AttentionBackward> attention_backward[kStorages];
  Kernel<Conv3x3> conv3x3[kStorages];
};

// The kernels that were built, narrowest first; `count` receives how many.
const Kernels* built(int* count);

// Whether this machine can run them.
bool runs_here(const Kernels& kernels);

// The widest that this machine can run.
const Kernels& best();

}  // namespace trilemma::cpu
