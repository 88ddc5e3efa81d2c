"""Guidance by pixels that are known, through the covariance that the denoiser's Jacobian gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.engine.images import checked_images
from trilemma.engine.inpainting import Known, known_region
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser, time_dtype
from trilemma.interfaces.guidance import BoundGuidance, Branch, Guidance
from trilemma.numerics.conversion import convert

_KNOWN, _MASK, _CONDITION = "known", "mask", "condition."


@dataclass(frozen=True)
class MomentMatching(Guidance):
    """E[x₀ | z_t, y] for pixels y = m x₀ + σ_y n, of the Gaussian with the mean and covariance of p(x₀ | z_t):

        x̃ = x̂₀ + Σ m (m Σ m + σ_y²)⁻¹ (y − m x̂₀),   Σ = Cov[x₀ | z_t] = (σ_t²/α_t) ∂x̂₀/∂z.

    The covariance is exact. So for Gaussian data x̃ is exact, and the law of the samples is exact in the limit of many
    steps. Σ is never made: its products are gradients through the network, and the inverse is taken by conjugate
    gradients.

    A step pays two evaluations of the network, the second with a gradient, and `iterations` + 1 gradients of it, each
    about as costly as two evaluations; the NFE counts the evaluations. Where α_t = 0 nothing is guided.

    Args:
        known: y, images [N, C, H, W]; sample i takes entry i modulo N.
        mask: m, [M, 1 or C, H, W] of 0 and 1, 1 where `known` is given; sample i takes entry i modulo M.
        sigma: σ_y, the noise of `known`; 0 for none.
        iterations: of conjugate gradients at most; as many as there are known pixels is exact.

    Raises:
        UsageError: for an option out of range, or images that do not fit the model.

    References:
        Rozet et al., Learning Diffusion Priors from Observations by Expectation Maximization, arXiv:2405.13712;
        Boys et al., Tweedie Moment Projected Diffusions for Inverse Problems, arXiv:2310.06721.
    """

    known: Tensor | None = field(default=None, compare=False)
    mask: Tensor | None = field(default=None, compare=False)
    sigma: float = 0.0
    iterations: int = 5

    neutral_scale = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sigma < math.inf:
            raise UsageError(
                f"moment-matching: sigma={self.sigma!r} is out of range; give 0 or a positive number"
            )
        checked_integer(self.iterations, "moment-matching: iterations", 1, 100_000, what="is no count")
        for name in ("known", "mask"):
            images = getattr(self, name)
            if images is None:
                continue
            if not isinstance(images, Tensor) or images.dim() != 4 or not bool(images.isfinite().all()):
                found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
                raise UsageError(
                    f"moment-matching: {name} ({found}) is no tensor of finite images; give it as [N, C, H, W]"
                )

    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        if model.process.components != 1:
            raise UsageError("moment-matching guides processes of one component; this one has more")
        images = None if self.known is None else checked_images("known", self.known, model.shape)
        region = known_region(images, self.mask, model.shape)
        if region is None:
            raise UsageError(
                "moment-matching needs what is known; give known=, the images, and mask=, 1 where they are"
            )
        return ByMoments(self, Branch(dict(cond), model), region)


class ByMoments(BoundGuidance):
    """Moment matching of a model.

    Args:
        options: σ_y and the number of iterations.
        branch: the evaluation that is guided.
        region: y and m.
    """

    linear = False
    uncapturable = "the gradient of the network is taken on the host"

    def __init__(self, options: MomentMatching, branch: Branch, region: Known) -> None:
        self.options, self.region = options, region
        self.branches = (branch,)

    def own_evaluations(self, t: float) -> int:
        return 1

    def targets(self, indices: Tensor, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {
            name: images[(indices.cpu() % len(images)).to(images.device)].to(indices.device)
            for name, images in ((_KNOWN, self.region.images), (_MASK, self.region.mask))
        }
        return found | {_CONDITION + name: entry for name, entry in cond.items()}

    def combine(
        self, z: Tensor, t: float, predictions: Sequence[Tensor], targets: Mapping[str, Tensor]
    ) -> Tensor:
        denoiser = self.model
        cond = {
            name.removeprefix(_CONDITION): entry
            for name, entry in targets.items()
            if name.startswith(_CONDITION)
        }
        time = torch.tensor(t, dtype=torch.float64)
        levels = denoiser.process.alpha(time), denoiser.process.sigma(time)
        alpha, sigma = (level.item() for level in levels)
        if alpha == 0 or sigma == 0:
            return predictions[0]
        p, q = (entry.item() for entry in convert(denoiser.parameterization, "x0", *levels))
        # Tensors made in inference mode never take part in autograd; copies made outside of it do.
        with torch.inference_mode(False), torch.enable_grad():
            dtype = next(
                (entry.dtype for entry in denoiser.own_tensors() if entry.is_floating_point()), z.dtype
            )
            state = z.detach().clone().requires_grad_()
            times = torch.full((len(z),), t, dtype=time_dtype(dtype), device=z.device)
            labels = {name: entry.clone() for name, entry in cond.items()}
            x0 = p * state + q * denoiser(state.to(dtype), times, **labels).to(z.dtype)

            def covariance(u: Tensor) -> Tensor:
                """Σ u [B, ...]."""
                (pulled,) = torch.autograd.grad(x0, state, u, retain_graph=True)
                return pulled * (sigma**2 / alpha)

            shift = self._correction(covariance, x0.detach(), targets)
        return predictions[0] + shift / q

    def _correction(
        self, covariance: Callable[[Tensor], Tensor], x0: Tensor, targets: Mapping[str, Tensor]
    ) -> Tensor:
        """Σ m (m Σ m + σ_y²)⁻¹ (y − m x̂₀), by conjugate gradients; a sample that has arrived stands still."""
        mask = targets[_MASK].clone().to(x0)
        left = mask * (targets[_KNOWN].clone().to(x0) - x0)
        u, along, square = torch.zeros_like(left), left, _dot(left, left)
        enough = torch.finfo(x0.dtype).eps ** 2 * square
        for _ in range(self.options.iterations):
            moved = mask * covariance(along) + self.options.sigma**2 * along
            curvature = _dot(along, moved)
            going = (curvature > 0) & (square > enough)
            length = (square / curvature).where(going, 0.0)
            u, left = u + length * along, left - length * moved
            after = _dot(left, left)
            along = left + (after / square).where(going, 0.0) * along
            square = after
        return covariance(u)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ of each sample, [B, 1, ...]."""
    return (a * b).sum(dim=tuple(range(1, a.dim())), keepdim=True)
