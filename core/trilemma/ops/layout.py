"""Where each coefficient of the fused step stands in a row of the coefficient table (K = 1)."""

from typing import Final

MAX_LAGS: Final = 7  # predictions of earlier rows that one row can read
MAX_BRANCHES: Final = 4  # evaluations of the network that one row can mix

A: Final = 0
B: Final = slice(1, 9)  # B_0, then B_1 .. B_7
C: Final = 9
P: Final = 10
Q: Final = 11
R: Final = 12
S: Final = 13
CLIP: Final = 14  # +inf: no clip
W: Final = slice(15, 19)
WIDTH: Final = 19
