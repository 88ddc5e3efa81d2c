"""The operators under the engine: a reference in PyTorch, and native kernels where they were built."""

from trilemma.ops import layout
from trilemma.ops.attending import attention
from trilemma.ops.explanation import Explanation, explain
from trilemma.ops.normals import keyed_normal
from trilemma.ops.operator import OPERATORS, Operator
from trilemma.ops.stepping import linear_step

__all__ = ["OPERATORS", "Explanation", "Operator", "attention", "explain", "keyed_normal", "layout", "linear_step"]
