"""One row of a tableau on a batch, outside of any loop: the steps that families offer by name are such rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trilemma.engine.program import lower
from trilemma.interfaces.process import Process
from trilemma.interfaces.tableau import Row, Tableau
from trilemma.ops import layout, linear_step


class RowStep:
    """Takes the step of one row, as the fused linear step of its coefficients; see `trilemma.ops.linear_step`.

        z ← A z + B f(z, output) + C ξ

    Args:
        process: that the row was planned for.
        row: of a plan; it reads no state and no prediction but its own.
        planned: parameterization of the plan's predictions f.
        parameterization: of the network's output.
        clip: bound of a static clip of x̂₀; None for none.
        weights: of the branches of the output, such as (s, 1 − s) of classifier-free guidance of scale s.

    Attributes:
        table: float64 [1, `layout.Columns(K).WIDTH`], the row as the fused step reads it.

    Raises:
        TrilemmaError: for a row that reads earlier states or predictions, or that is not finite.
        UsageError: for an unknown parameterization.
    """

    def __init__(
        self,
        process: Process,
        row: Row,
        planned: str,
        parameterization: str,
        *,
        clip: float | None = None,
        weights: Sequence[float] = (1.0,),
    ) -> None:
        tableau = Tableau((row,), planned, clip, process.components)
        self.table = lower(tableau, parameterization, process).table.clone()
        self._others = len(row.D)
        columns = layout.Columns(process.components)
        self.table[0, columns.W][: len(weights)] = torch.tensor(weights, dtype=torch.float64)

    def __call__(
        self,
        z: Tensor,
        output: Tensor,
        *,
        seed: int = 0,
        step: int = 0,
        indices: Tensor | None = None,
        noise: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Returns the state after the step.

        Args:
            z: [B, K·C, ...], the state that the network saw.
            output: [G·B, C, ...], its output, the branches one after the other.
            seed, step, indices: key of the noise made here, see `trilemma.ops.linear_step`.
            noise: ξ [B, K·C, ...], in place of noise made here.
            out: like z, receives the result; it may be z.

        Raises:
            UsageError: where the arguments do not fit together, or a gradient is asked for.
        """
        out = torch.empty_like(z) if out is None else out
        # The row's number is the step of the noise's key.
        table = self.table.expand(step + 1, -1)
        others = [z] * self._others
        linear_step(out, z, z, output, table, step, seed=seed, indices=indices, noise=noise, others=others)
        return out
