from dataclasses import dataclass

import torch

from trilemma import Row, Sampler, Tableau


@dataclass(frozen=True)
class Angular(Sampler):
    """With z = r (cos φ x₀ + sin φ ε), d(z/r)/dφ = v/r, so that z_s = (r_s/r_t) (z_t + (φ_s − φ_t) v)."""

    grid: str = "trailing"
    order = 1
    deterministic = True

    def plan(self, process, times):
        alpha, sigma = process.alpha_sigma(times)
        radius, angle = torch.hypot(alpha, sigma), torch.atan2(sigma, alpha)
        ratio = radius[1:] / radius[:-1]
        steps = zip(times.tolist(), ratio.tolist(), (ratio * angle.diff()).tolist(), strict=False)
        return Tableau(tuple(Row(t, A, B=((0, h),)) for t, A, h in steps), "v")
