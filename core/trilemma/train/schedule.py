"""The learning rate as a function of the step."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, warmup: int, peak: float, final: float) -> float:
    """Returns the learning rate: linear from 0 to `peak` over `warmup` steps, then a cosine to `final` at `steps`.

    lr(k) = peak·(k+1)/warmup for k < warmup; final + (peak − final)(1 + cos πu)/2 with u = (k−warmup)/(steps−warmup).
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return final + (peak - final) * (1 + math.cos(math.pi * progress)) / 2
