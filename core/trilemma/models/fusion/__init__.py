"""Swaps the patterns of a network for the engine's operators, in place and reversibly."""

from trilemma.models.fusion.fusing import fuse, unfuse
from trilemma.models.fusion.report import Fused, FusionReport, Left

__all__ = ["Fused", "FusionReport", "Left", "fuse", "unfuse"]
