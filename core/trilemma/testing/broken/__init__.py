"""Components with the classic faults, and the check that must fail for each: proof that the kit can fail."""

from trilemma.testing.broken.faults import FAULTS, Fault

__all__ = ["FAULTS", "Fault"]
