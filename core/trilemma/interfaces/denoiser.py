"""The trained network and how to read it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition, Condition, Prepared, PreparedConditions
from trilemma.interfaces.data_view import DataView, Direct
from trilemma.interfaces.process import Process
from trilemma.numerics.conversion import PARAMETERIZATIONS, convert


def time_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype of the times t that a network of this dtype is given: its own, and never below float32.

    Coefficients are made at times in float64. A float64 network given a time rounded to float32 would answer for
    another noise level than the one the engine assumes.
    """
    return torch.promote_types(dtype, torch.float32)


def gradient_of(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Returns ∂/∂z Σ function(z) [B, ...], as an energy answers; it can be differentiated where gradients are on.

    Args:
        function: of states [B, ...], such as an energy [B] of each.
        z: states [B, ...], no tensor made in inference mode: a class that says `gradient = True` is given none.
    """
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        state = z if z.requires_grad else z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(state).sum(), state, create_graph=differentiable)
    return slope


def log_density(denoiser: Denoiser, z: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
    """Returns log p_t(z) + c(t) [B] of a denoiser with an energy E, whose gradient is its answer f (K = 1).

        ∇ log p_t(z) = p z + q f   and so   log p_t(z) = ½ p ‖z‖² + q E(z, t) + c(t)

    Args:
        denoiser: of any parameterization.
        z: states [B, ...].
        t: times [B], float64 on the host.
        cond: conditions as tensors by name.

    Raises:
        UsageError: for a denoiser that has no energy.
    """
    p, q = convert(denoiser.parameterization, "score", denoiser.process.alpha(t), denoiser.process.sigma(t))
    energy = denoiser.energy(z, t.to(z.device, time_dtype(z.dtype)), **cond)
    return p.to(energy) * z.square().flatten(1).sum(1) / 2 + q.to(energy) * energy


def _outside_of_inference(self: Denoiser, *tensors: Any, **named: Any) -> Any:
    """`Denoiser.__call__` of a network whose answer is a gradient: autograd takes no tensor made in inference mode."""
    if not torch.is_inference_mode_enabled():
        return nn.Module.__call__(self, *tensors, **named)
    with torch.inference_mode(False), torch.no_grad():
        copies = [_copy(entry) for entry in tensors]
        return nn.Module.__call__(self, *copies, **{name: _copy(entry) for name, entry in named.items()})


def _copy(entry: Any) -> Any:
    return entry.clone() if isinstance(entry, Tensor) else entry


class Denoiser(nn.Module):
    """A network that answers z_t with a prediction in its `parameterization`.

    Attributes:
        process: the noising process it was trained on.
        parameterization: of its output: x0, eps, v, score or flow.
        shape: shape (C, H, W) of one sample of the data.
        conditions: the conditions that it takes, by name.
        components: numbers of components K of the processes it works on; None for any number.
        view: the images that its data stand for: themselves, or for a latent model those that its autoencoder makes.
        draws: what the network draws for itself at every evaluation: the shapes, without the batch, of standard normals
            ξ by name. They are keyed by (seed, sample index, row), and every branch of guidance is given the same ones.
        takes_to: whether it is told the time that a row goes to, as the keyword `to` [B].
        gradient: whether its answer is a gradient, see `gradient_of`. A call in inference mode leaves it, with
            copies of the tensors.
        fullgraph: whether it compiles into one graph (`torch.compile`); False where its forward branches on tensor
            values, and where its answer is a gradient.
        card: the parsed model.toml it was loaded from, None for a network that was not.
    """

    components: tuple[int, ...] | None = None
    draws: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    takes_to: bool = False
    gradient: bool = False
    fullgraph: bool = True
    view: DataView = Direct()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not cls.gradient:
            return
        # A gradient is taken within the call.
        cls.fullgraph = False
        if cls.__call__ is Denoiser.__call__:
            cls.__call__ = _outside_of_inference  # type: ignore[method-assign]

    def __init__(
        self,
        process: Process,
        parameterization: str,
        shape: Sequence[int],
        conditions: Sequence[Condition] = (),
    ) -> None:
        super().__init__()
        if parameterization not in PARAMETERIZATIONS:
            raise UsageError(
                f"unknown parameterization {parameterization!r}; expected one of {', '.join(PARAMETERIZATIONS)}"
            )
        self.process = process
        self.parameterization = parameterization
        self.shape = tuple(shape)
        self.conditions = {condition.name: condition for condition in conditions}
        self.card: Mapping[str, Any] | None = None

    @abstractmethod
    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Returns the prediction at state z [B, K·C, H, W] and times t [B] in [0, 1].

        The keywords are those of its conditions, tensors [B, ...] in float32, int64 and bool, which the network casts
        to its own dtype; and beside them those that the class `draws` and, where it `takes_to`, the times `to` [B].
        """

    def energy(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Returns the energy [B] whose gradient by z is the answer, for what `forward` takes; see `trilemma.energy`.

        Raises:
            UsageError: for a network that has none.
        """
        raise UsageError(
            f"{type(self).__name__} has no energy: its answer is no gradient; give a model that writes `energy`"
        )

    @property
    def has_energy(self) -> bool:
        """True where its answer is the gradient of its `energy`."""
        return type(self).energy is not Denoiser.energy

    @property
    def keywords(self) -> tuple[str, ...]:
        """Names of the tensors that it receives beside z and t: those of all its conditions."""
        return tuple(name for condition in self.conditions.values() for name in condition.keywords)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape (C, H, W) of the images that its data stand for: that of the data, but for a latent model."""
        return self.view.image_shape(self.shape)

    @property
    def usual_sampler(self) -> str | None:
        """Spec of the sampler that its card names; None where the card names none."""
        found = (self.card or {}).get("sampling", {}).get("sampler")
        return None if found is None else str(found)

    @property
    def usual_guidance(self) -> str | None:
        """Spec of the guidance that its card names for samples with a condition; None where the card names none."""
        found = (self.card or {}).get("sampling", {}).get("guidance")
        return None if found is None else str(found)

    @property
    def usual_steps(self) -> int | None:
        """Number of steps that its card names; None where the card names none."""
        found = (self.card or {}).get("sampling", {}).get("steps")
        return None if found is None else int(found)

    def name_classes(self, condition: str, names: Sequence[str]) -> None:
        """Names the classes of a condition; does nothing where there are not as many names as classes."""
        known = self.conditions.get(condition)
        if isinstance(known, ClassCondition) and known.size == len(names):
            self.conditions[condition] = replace(known, names=tuple(names))

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Denoiser:
        """Changes all tensors, as `to` does; what its data are seen through follows to another device."""
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        for entry in self.own_tensors()[:1]:
            self.view.follow(entry.device)
        return self

    def own_tensors(self) -> list[Tensor]:
        """Returns the network's parameters and buffers, but not those of a learned process, which has its own dtype."""
        process = self.process
        learned = (*process.parameters(), *process.buffers()) if isinstance(process, nn.Module) else ()
        apart = {id(entry) for entry in learned}
        return [entry for entry in (*self.parameters(), *self.buffers()) if id(entry) not in apart]

    def with_attention(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Denoiser:
        """Returns this network with the same weights and attend(q, k, v) in place of softmax(q kᵀ) v in self-attention.

        Args:
            attend: function of queries, keys and values [B, heads, L, D].

        Raises:
            UsageError: for a network that has no self-attention, or does not say how to change it.
        """
        raise UsageError(f"{type(self).__name__} has no self-attention to change; use another guidance")

    def prepare(self, cond: Mapping[str, Any] | None) -> PreparedConditions:
        """Returns all declared conditions as tensors to take samples from; a missing one is its null.

        Args:
            cond: values by name; what was prepared before stays as it is.

        Raises:
            UsageError: for a condition that this denoiser does not take, a value that is none of the condition, or a
                missing one that has no null.
        """
        given = self.prepare_given(cond)
        return PreparedConditions([c.prepare(given.get(name)) for name, c in self.conditions.items()])

    def prepare_given(self, cond: Mapping[str, Any] | None) -> dict[str, Prepared | None]:
        """Returns the values that were given as tensors, by name, with None for the null.

        Raises:
            UsageError: as `prepare` does, but not for a missing condition.
        """
        given = dict(cond or {})
        for name in given:
            if name not in self.conditions:
                known = f"takes: {', '.join(self.conditions)}" if self.conditions else "takes no condition"
                raise UsageError(f"unknown condition {name!r}; this model {known}")
        return {
            name: None if value is None else self.conditions[name].prepare(value)
            for name, value in given.items()
        }
