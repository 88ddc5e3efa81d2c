"""The choice between a kernel of ours and PyTorch's own way, by measurement: one mechanism for all operators."""

from trilemma.ops.choice.deciding import InForce, chooses, force, forced, forget, in_force, prepared, why_left
from trilemma.ops.choice.record import Cell, Machine, Record
from trilemma.ops.choice.ways import CHOSEN, NATIVE, PYTORCH, REASONS

__all__ = [
    "CHOSEN",
    "NATIVE",
    "PYTORCH",
    "REASONS",
    "Cell",
    "InForce",
    "Machine",
    "Record",
    "chooses",
    "force",
    "forced",
    "forget",
    "in_force",
    "prepared",
    "why_left",
]
