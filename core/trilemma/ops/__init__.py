"""The operators under the engine: a reference in PyTorch, and native kernels where they were built."""

from trilemma.ops import choice, layout
from trilemma.ops.attention import attention
from trilemma.ops.convolution import conv3x3
from trilemma.ops.dynamic_threshold import dynamic_threshold
from trilemma.ops.explain import Explanation, explain
from trilemma.ops.glu import glu
from trilemma.ops.group_norm import group_norm_act
from trilemma.ops.keyed_normal import keyed_normal
from trilemma.ops.layer_norm import layer_norm
from trilemma.ops.linear_step import linear_step
from trilemma.ops.linear_step_replay import linear_step_replay
from trilemma.ops.operator import OPERATORS, Operator
from trilemma.ops.perturb import perturb

# The native library is told the ways before the first call.
choice.prepared()

__all__ = [
    "OPERATORS",
    "Explanation",
    "Operator",
    "attention",
    "choice",
    "conv3x3",
    "dynamic_threshold",
    "explain",
    "glu",
    "group_norm_act",
    "keyed_normal",
    "layer_norm",
    "layout",
    "linear_step",
    "linear_step_replay",
    "perturb",
]
