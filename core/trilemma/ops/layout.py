"""The layout of the coefficient table: the column of each coefficient of the fused step."""

from dataclasses import dataclass
from typing import Final

# Number of predictions of earlier rows that one row can read.
MAX_LAGS: Final = 7
# Number of evaluations of the network that one row can mix.
MAX_BRANCHES: Final = 4
# Number of states that one row can read beside its base.
MAX_OTHERS: Final = 3


@dataclass(frozen=True)
class Columns:
    """The columns for states of K components: matrices row by row, B_0 then B_1 .. B_7, D_1 .. D_3.

    Args:
        components: K, 1 or 2.
    """

    components: int

    @property
    def A(self) -> slice:
        """K×K."""
        return slice(0, self.components**2)

    @property
    def B(self) -> slice:
        """K numbers a lag: B_0, then B_1 .. B_7."""
        return self._after(self.A, (1 + MAX_LAGS) * self.components)

    @property
    def C(self) -> slice:
        """K×K."""
        return self._after(self.B, self.components**2)

    @property
    def P(self) -> slice:
        """K."""
        return self._after(self.C, self.components)

    @property
    def Q(self) -> int:
        return self._end(self.P)

    @property
    def R(self) -> slice:
        """K."""
        return self._after(slice(0, self.Q + 1), self.components)

    @property
    def S(self) -> int:
        return self._end(self.R)

    @property
    def CLIP(self) -> int:
        """+inf: no clip."""
        return self.S + 1

    @property
    def W(self) -> slice:
        """A weight a branch."""
        return self._after(slice(0, self.CLIP + 1), MAX_BRANCHES)

    @property
    def D(self) -> slice:
        """K×K another state."""
        return self._after(self.W, MAX_OTHERS * self.components**2)

    @property
    def WIDTH(self) -> int:
        return self._end(self.D)

    @staticmethod
    def _end(columns: slice) -> int:
        end: int = columns.stop
        return end

    @staticmethod
    def _after(before: slice, count: int) -> slice:
        return slice(before.stop, before.stop + count)


ONE_COMPONENT: Final = Columns(1)
# Two components, as position and velocity, stacked on dim 1 of the state.
TWO_COMPONENTS: Final = Columns(2)

# The columns of one component, by themselves.
A: Final = ONE_COMPONENT.A.start
B: Final = ONE_COMPONENT.B
C: Final = ONE_COMPONENT.C.start
P: Final = ONE_COMPONENT.P.start
Q: Final = ONE_COMPONENT.Q
R: Final = ONE_COMPONENT.R.start
S: Final = ONE_COMPONENT.S
CLIP: Final = ONE_COMPONENT.CLIP
W: Final = ONE_COMPONENT.W
D: Final = ONE_COMPONENT.D
WIDTH: Final = ONE_COMPONENT.WIDTH


def columns(width: int) -> Columns | None:
    """Returns the columns of a table of this width; None for a width that no table has."""
    return next((found for found in (ONE_COMPONENT, TWO_COMPONENTS) if width == found.WIDTH), None)
