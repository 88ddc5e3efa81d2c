"""Solves F(z) = 0 for every sample of a batch at once, by evaluations of F alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Krylov directions in each round; the last number holds from there on.
DIRECTIONS = (1, 2, 4, 8, 16)
# In units of ‖J‖ on the Krylov space.
FIRST_SHIFT, LARGEST_SHIFT = 0.06, 1e6
# Successive steps that do not lower ‖F‖; so many mean a fold.
REFUSALS = 3
# Rounds along −F before those along F; the number doubles after each turn.
PATIENCE = 16.0


@dataclass(frozen=True)
class Solution:
    """A zero, sample by sample.

    Attributes:
        z: the states with the smallest residual that was met, [B, ...].
        residual: of them, max |F| divided by the scale, [B], on the device.
        rounds: that were run.
    """

    z: Tensor
    residual: Tensor
    rounds: int


def solve(
    function: Callable[[Tensor], Tensor],
    start: Tensor,
    scale: Tensor,
    tolerance: float,
    rounds: int,
    precision: float,
    slope: float = 1.0,
) -> Solution:
    """Returns zeros of a function of states [B, ...] that acts on every sample by itself, by a Newton–Krylov method.

    A round finds the step p of each sample as the smallest ‖(J + μ) p + F‖ over a Krylov space of J, whose products are
    differences of F, and keeps it where it is good:

        J p ≈ (F(z + h p) − F(z))/h,   z ← z + p   where ‖F(z + p)‖ < ‖F(z)‖,

    with μ = 0 while that succeeds (Newton's method) and raised where it does not. Where no step brings ‖F‖ down, at a
    fold of F, the sample goes on along dz/dτ = −F: it then keeps steps that go down the potential of which F is the
    gradient, ⟨F(z) + F(z + p), p⟩ < 0 and ⟨F(z), p⟩ < 0, even where ‖F‖ rises on the way (pseudo-transient
    continuation).
    A sample that has arrived stands still, so that none depends on the others of its batch. The host reads one value a
    round: whether all have arrived.

    Args:
        function: F, [B, ...] → [B, ...]. It is evaluated twice before the first round, 2, 3, 5, 9 times in the next
            four and 17 times in any further one, or one more than a sample has numbers.
        start: z to begin with.
        scale: of F, [B].
        tolerance: of max |F|/scale.
        rounds: at most.
        precision: relative rounding error of F.
        slope: rough slope of F; the first round begins at z − F/slope where ‖F‖ is smaller there.

    References:
        Knoll & Keyes, Jacobian-free Newton–Krylov methods, J. Comput. Phys. 193 (2004).
        Kelley & Keyes, Convergence analysis of pseudo-transient continuation, SIAM J. Numer. Anal. 35 (1998).
    """
    size = start[0].numel()

    def at(points: Tensor) -> Tensor:
        return function(points.view_as(start)).flatten(1)

    begin = start.flatten(1)
    begin_F = at(begin)
    there = begin - begin_F / slope
    F_there = at(there)
    nearer = F_there.norm(dim=1) < begin_F.norm(dim=1)
    z, F = begin, begin_F = _where(nearer, there, begin), _where(nearer, F_there, begin_F)
    best, residual = z, _largest(F) / scale
    shift = torch.zeros_like(residual, dtype=torch.float64)
    # 0: ‖F‖ falls; −1 and 1: the iterate moves along −F and F.
    way = torch.zeros_like(shift)
    refused, age, patience = (
        torch.zeros_like(shift),
        torch.zeros_like(shift),
        torch.full_like(shift, PATIENCE),
    )
    done = 0
    while done < rounds and not bool((residual <= tolerance).all()):
        directions = min(size, DIRECTIONS[min(done, len(DIRECTIONS) - 1)])
        basis, H, length = _krylov(at, z, F, directions, precision)
        p = _step(basis, H, length, torch.where(way > 0, -shift, shift))
        there = z + p
        F_there = at(there)
        onwards = (way * (F * p).sum(1) > 0) & (way * ((F + F_there) * p).sum(1) > 0)
        nearer = F_there.norm(dim=1) < 0.999 * F.norm(dim=1)
        kept = torch.where(way == 0, nearer, onwards) & (residual > tolerance) & F_there.isfinite().all(1)
        z, F = _where(kept, there, z), _where(kept, F_there, F)
        found = _largest(F) / scale
        halved, better = found < residual / 2, found < residual
        best, residual = _where(better, z, best), torch.where(better, found, residual)

        refused = torch.where(kept, 0.0, refused + 1)
        age = torch.where(halved | (way == 0), 0.0, age + 1)
        at_fold, turned = (way == 0) & (refused > REFUSALS), age > patience
        z, F = _where(turned, begin, z), _where(turned, begin_F, F)
        way = torch.where(at_fold, -1.0, torch.where(turned, -way, way))
        age, patience = torch.where(turned, 0.0, age), torch.where(turned, 2 * patience, patience)
        raised = (4 * shift).clamp(FIRST_SHIFT, LARGEST_SHIFT)
        lowered = torch.where(shift < FIRST_SHIFT, 0.0, shift / 4)
        shift = torch.where(turned, FIRST_SHIFT, torch.where(kept, lowered, raised))
        done += 1
    return Solution(best.view_as(start), residual, done)


def _krylov(
    at: Callable[[Tensor], Tensor], z: Tensor, F: Tensor, directions: int, precision: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns a basis V [B, m + 1, d] of the Krylov space of J and F, H [B, m + 1, m] with J V = V H, and ‖F‖ [B]."""
    length = F.norm(dim=1)
    basis = [_normal(F, length)]
    h = precision**0.5 * z.norm(dim=1).clamp_min(z.shape[1] ** 0.5)
    H = torch.zeros(len(z), directions + 1, directions, dtype=torch.float64, device=z.device)
    for m in range(directions):
        w = (at(z + h[:, None] * basis[m]) - F) / h[:, None]
        before = w.norm(dim=1)
        # A second pass removes what rounding left.
        for _ in range(2):
            for j, v in enumerate(basis):
                along = (w * v).sum(1)
                H[:, j, m] += along
                w = w - along[:, None] * v
        left = w.norm(dim=1)
        # A direction that brings nothing but rounding ends the space.
        left = torch.where(left > 10 * precision**0.5 * before, left, 0.0)
        H[:, m + 1, m] = left
        basis.append(_normal(w, left))
    return torch.stack(basis, 1), H, length


def _step(basis: Tensor, H: Tensor, length: Tensor, shift: Tensor) -> Tensor:
    """p = V y with the y that minimises ‖(H + μ) y + ‖F‖ e₁‖, [B, d]; μ is the shift in units of ‖H‖."""
    columns = H.shape[2]
    eye = torch.eye(columns + 1, columns, dtype=H.dtype, device=H.device)
    size = torch.linalg.matrix_norm(H)
    shifted = H + (shift * size)[:, None, None] * eye
    normal = shifted.mT @ shifted
    normal = normal + (1e-14 * size.square() + 1e-300)[:, None, None] * eye[:columns]
    right = -length.double()[:, None] * shifted[:, 0, :]
    y = torch.linalg.solve_ex(normal, right)[0].to(basis.dtype)
    step: Tensor = (basis[:, :columns] * y[..., None]).sum(1)
    return step


def _where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition[:, None], a, b)


def _normal(w: Tensor, length: Tensor) -> Tensor:
    return torch.where(length[:, None] > 0, w / length[:, None], 0.0)


def _largest(F: Tensor) -> Tensor:
    return F.abs().amax(1).nan_to_num(nan=torch.inf)
