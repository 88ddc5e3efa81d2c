from dataclasses import dataclass

import torch

from trilemma import Row, Sampler, Tableau


@dataclass(frozen=True)
class Euler(Sampler):
    """With z = cos φ x₀ + sin φ ε, dz/dφ = v, so that z_s = z_t + (φ_s − φ_t) v."""

    grid: str = "trailing"
    order = 1
    deterministic = True

    def plan(self, process, times):
        angles = torch.atan2(process.sigma(times), process.alpha(times))
        steps = zip(times.tolist(), angles.diff().tolist(), strict=False)
        return Tableau(tuple(Row(t, A=1.0, B=((0, h),)) for t, h in steps), "v")
