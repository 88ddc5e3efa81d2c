"""Conditions in training: the labels of a data set as a network is told them."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.interfaces.condition import LABEL
from trilemma.interfaces.denoiser import Denoiser


def conditions_of(denoiser: Denoiser, labels: Tensor, device: torch.device) -> dict[str, Tensor]:
    """Returns the conditions that a data set gives a network: its labels."""
    return {LABEL: labels.to(device)} if LABEL in denoiser.conditions else {}
