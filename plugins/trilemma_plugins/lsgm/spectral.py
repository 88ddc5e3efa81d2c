"""Spectral regularisation: the sum of the largest singular values of all layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

# Power iterations at the start, which is random, and in each step, in which the weights move little.
_BEGIN, _EACH = 20, 1
_KINDS = (nn.Linear, nn.modules.conv._ConvNd)


class SpectralNorms(nn.Module):
    """Σ_l σ_max(W_l) over the linear and convolutional layers of some networks, a kernel read as [out, in·k·k].

    σ_max = uᵀ W v for singular vectors that one power iteration a step, while in training mode, keeps up with the
    weights. They are buffers, so that a run resumes to the same bits. Layers of one shape are iterated together.

    Args:
        networks: whose layers count; they are no part of this module.

    References:
        Yoshida & Miyato, Spectral Norm Regularization, arXiv:1705.10941; Vahdat & Kautz, NVAE, arXiv:2007.03898.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        for number, stack in enumerate(_stacks(networks).values()):
            W = torch.stack([_matrix(weight) for weight in stack]).detach()
            v = torch.nn.functional.normalize(torch.randn(len(W), W.shape[2]), dim=1)
            u, v = _iterated(W, v, _BEGIN)
            self.register_buffer(f"left{number}", u)
            self.register_buffer(f"right{number}", v)

    def forward(self, networks: Iterable[nn.Module]) -> Tensor:
        """Returns Σ_l σ_max(W_l), single, with its gradient to the weights; the networks are those of the start."""
        stacks = _stacks(networks).values()
        total = torch.zeros((), device=next(iter(stacks))[0].device)
        with torch.autocast(total.device.type, enabled=False):
            return self._sum(stacks, total)

    def _sum(self, stacks: Iterable[list[Tensor]], total: Tensor) -> Tensor:
        for number, stack in enumerate(stacks):
            W = torch.stack([_matrix(weight).float() for weight in stack])
            u, v = self.get_buffer(f"left{number}"), self.get_buffer(f"right{number}")
            if self.training:
                with torch.no_grad():
                    for buffer, found in zip((u, v), _iterated(W, v, _EACH), strict=True):
                        buffer.copy_(found)
            # Copies, since the next step writes to the buffers.
            total = total + torch.einsum("lo,loi,li->", u.clone(), W, v.clone())
        return total


def _stacks(networks: Iterable[nn.Module]) -> dict[tuple[int, int], list[Tensor]]:
    """The weights of the layers, by the shape of their matrices."""
    found: dict[tuple[int, int], list[Tensor]] = {}
    for weight in _weights(networks):
        rows = weight.shape[0]
        found.setdefault((rows, weight.numel() // rows), []).append(weight)
    return found


def _weights(networks: Iterable[nn.Module]) -> Iterator[Tensor]:
    for network in networks:
        for module in network.modules():
            if isinstance(module, _KINDS):
                yield module.weight


def _matrix(weight: Tensor) -> Tensor:
    return weight.flatten(1)


def _iterated(W: Tensor, v: Tensor, times: int) -> tuple[Tensor, Tensor]:
    """The left and right singular vectors [L, out], [L, in] of matrices [L, out, in], from right ones."""
    for _ in range(times):
        u = torch.nn.functional.normalize(torch.einsum("loi,li->lo", W, v), dim=1)
        v = torch.nn.functional.normalize(torch.einsum("loi,lo->li", W, u), dim=1)
    return u, v
