"""The time that a step of a recipe takes on this machine."""

from __future__ import annotations

import time

import torch

from trilemma import lookup
from trilemma.interfaces.condition import PreparedConditions
from trilemma.models.card import build_denoiser
from trilemma.train.recipe import Recipe

_TIMED_STEPS = 3


def seconds_a_step(recipe: Recipe, shape: tuple[int, int, int]) -> float:
    """Returns the shortest of a few training steps on images of a shape, in seconds; the first is not counted."""
    card = {**recipe.card_tables(), "data": {"shape": list(shape)}}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    denoiser = build_denoiser(card, seed=0).to(device).train()
    objective = lookup.objective(recipe.objective.spec)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-9)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.zeros((recipe.batch_size, *shape), device=device)
    rows = torch.arange(recipe.batch_size, device=device)
    told = [entry.drawn(recipe.batch_size, generator) for entry in denoiser.conditions.values()]
    cond = PreparedConditions(told).take(rows)
    times = []
    # Dropout draws from the global generators.
    with torch.random.fork_rng():
        for _ in range(1 + _TIMED_STEPS):
            began = time.perf_counter()
            loss = objective.loss(denoiser, denoiser, x0, cond, generator)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            # This waits for a GPU.
            loss.item()
            times.append(time.perf_counter() - began)
    return min(times[1:])
