"""Samplers: their times and their coefficients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.prediction import Prediction
from trilemma.interfaces.process import Process
from trilemma.interfaces.spacing import Grid, checked_grid, spaced_times
from trilemma.interfaces.tableau import Tableau
from trilemma.registry.manager import registered_name
from trilemma.registry.options import WithOptions


class Sampler(WithOptions, ABC):
    """A way from the prior to the data. Write it as a frozen dataclass whose fields are its options.

    A sampler whose steps are linear in the state, the predictions and noise writes `plan` and is run by the
    engine. Any other writes `sample` instead, which then runs in place of a plan.

    Two options mean the same in every sampler that has them. They are checked and documented here.

    Args:
        grid: of times, by name or as a falling list of them, see `trilemma.interfaces.spacing`.
        clip: bound of a static clip of x̂₀, such as 1 for images in [−1, 1]; None for none.

    Attributes:
        order: global order of convergence: to the solution of the probability-flow equation for a deterministic
            sampler, of the law of the samples (weak order) for a stochastic one.
        deterministic: whether the state at the prior decides the sample.
        strong_order: order of convergence along one path of the noise; None where none is claimed.
        from_pure_noise: whether it can take its first step from α = 0, where a rectified flow starts.
        tolerance: of each step's error, where the sampler adapts its steps; None where the steps are those of the grid.
            The conformance kit checks this tolerance in place of an order.
        fullgraph: whether its own `sample` compiles into one graph (`torch.compile`). Reading a value on the host, such
            as a coefficient or an error, prevents that. It means nothing for a sampler with a plan.
        components: numbers of components K of the processes it runs on; None for any.
        exact: data on which any number of steps is exact: "point" (one point), "gaussian" (the law of N(m, s²)).
    """

    grid: Grid = "trailing"
    strong_order: float | None = None
    tolerance: float | None = None
    from_pure_noise: bool = True
    fullgraph: bool = True
    components: tuple[int, ...] | None = (1,)
    exact: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        clip = getattr(self, "clip", None)
        if clip is not None and not clip > 0:
            name = registered_name(type(self))
            raise UsageError(f"{name}: clip={clip!r} is no bound; give a positive number or None")
        checked = checked_grid(self.grid)
        if isinstance(checked, tuple):
            # A list or a tensor of times becomes a tuple, which can be hashed and written.
            object.__setattr__(self, "grid", checked)

    @property
    @abstractmethod
    def order(self) -> int: ...

    @property
    @abstractmethod
    def deterministic(self) -> bool: ...

    def times(self, process: Process, steps: int) -> Tensor:
        """Returns the times [steps + 1], float64, strictly falling from the prior to 0.

        Raises:
            UsageError: for fewer than one step, or more than a discrete process has.
        """
        return spaced_times(process, steps, self.grid)

    def nfe(self, steps: int) -> int:
        """Returns the evaluations of the network that one sample pays without guidance; the least where steps adapt."""
        return steps

    def plan(self, process: Process, times: Tensor) -> Tableau:
        """Returns the sampler's coefficients on these times."""
        raise NotImplementedError(f"{type(self).__name__} writes neither plan nor sample")

    def sample(
        self,
        predict: Prediction,
        z: Tensor,
        times: Tensor,
        noise: Callable[[int], Tensor],
        report: Callable[[int, float, Tensor], None],
    ) -> Tensor:
        """Returns the samples [B, C, ...] from states z [B, K·C, ...] at times[0], for a sampler that has no plan.

        Args:
            predict: the guided prediction, `predict(z, t, parameterization)`; it counts its evaluations. A time for
                each sample is a float64 tensor [B] on the host.
            z: states at times[0].
            times: [steps + 1], float64.
            noise: ξ [B, K·C, ...] of a step 0, 1, …, always the same for a step.
            report: to be called after each step with (steps done, time of the state, state).
        """
        raise NotImplementedError(f"{type(self).__name__} runs by its plan")

    @property
    def has_plan(self) -> bool:
        """True where the engine runs this sampler by its plan."""
        return type(self).sample is Sampler.sample
