"""The operators under the engine: a reference in PyTorch, and native kernels where they were built."""

from trilemma.ops import layout
from trilemma.ops.explanation import Explanation, explain
from trilemma.ops.operators import keyed_normal, linear_step

__all__ = ["Explanation", "explain", "keyed_normal", "layout", "linear_step"]
