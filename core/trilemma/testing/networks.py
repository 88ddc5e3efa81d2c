"""Checks that networks of several kinds have in common: functions of a batch of images."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# Returns the answers of a network to a batch of images, each [B, ...].
Asked = Callable[[nn.Module, Tensor], Sequence[Tensor]]


def pictures(shape: Sequence[int], count: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns images [count, C, H, W] in [−1, 1], always the same."""
    pixels = torch.rand(count, *shape, generator=torch.Generator().manual_seed(5))
    return (2 * pixels - 1).to(dtype)


@torch.no_grad()
def asked_alone(network: nn.Module, asked: Asked, images: Tensor) -> str:
    """Checks that an image has the same answers alone as in a batch, and a second time."""
    whole = asked(network, images)
    again = asked(network, images)
    alone = [
        torch.cat(parts) for parts in zip(*(asked(network, image[None]) for image in images), strict=True)
    ]
    worst = 0.0
    for first, second, own in zip(whole, again, alone, strict=True):
        assert torch.equal(first, second), "the same images have other answers the second time"
        worst = max(worst, _difference(own, first))
    assert worst < 1e-3, f"answers move by {worst:.2g} when an image is given alone"
    return f"to {worst:.1g}"


@torch.no_grad()
def asked_for_nothing(network: nn.Module, asked: Asked, images: Tensor) -> str:
    """Checks that an empty batch has no answers, in the shapes of the others."""
    whole = asked(network, images)
    try:
        none = asked(network, images[:0])
    except Exception as error:
        # A plugin may raise anything.
        raise AssertionError(f"an empty batch raises {type(error).__name__}: {error}") from error
    for found, like in zip(none, whole, strict=True):
        expected = (0, *like.shape[1:])
        assert tuple(found.shape) == expected, f"an empty batch gives {tuple(found.shape)}, not {expected}"
    return f"{len(whole)} answers"


@torch.no_grad()
def asked_with_nan(network: nn.Module, asked: Asked, images: Tensor) -> str:
    """Checks that an image that is not finite has no finite answer, and spoils no other."""
    whole = asked(network, images)
    spoiled = images.clone()
    spoiled[1] = math.nan
    for found, like in zip(asked(network, spoiled), whole, strict=True):
        assert not bool(found[1].isfinite().any()), "an image of NaN has a finite answer"
        assert _difference(found[0], like[0]) < 1e-3, "an answer moves when its neighbour is NaN"
    return "and in no other"


@torch.no_grad()
def asked_in_dtypes(network: nn.Module, asked: Asked, images: Tensor) -> str:
    """Checks that the network works in float32, bfloat16 and float64, and answers alike."""
    exact = [entry.double() for entry in asked(network, images)]
    for dtype, tolerance in ((torch.float64, 1e-3), (torch.float32, 1e-3), (torch.bfloat16, 0.2)):
        try:
            answers = asked(copy.deepcopy(network).to(dtype), images.to(dtype))
        except RuntimeError as error:
            raise AssertionError(f"in {dtype} it raises: {error}") from error
        for found, like in zip(answers, exact, strict=True):
            assert found.dtype == dtype, f"in {dtype} it answers in {found.dtype}"
            off = _difference(found.double(), like)
            assert off < tolerance, f"answers in {dtype} are {off:.2g} off"
    return "they agree"


@torch.no_grad()
def left_alone(network: nn.Module, asked: Asked, images: Tensor) -> str:
    """Checks that images are not written to."""
    kept = images.clone()
    asked(network, images)
    assert torch.equal(images, kept), "it writes to the images it is given"
    return "as they were"


@torch.no_grad()
def saved(network: nn.Module, asked: Asked, images: Tensor) -> str:
    """Checks that the state dict holds all that decides the answers."""
    whole = asked(network, images)
    other = copy.deepcopy(network)
    for module in other.modules():
        for entry in (
            *module.parameters(recurse=False),
            *module.buffers(recurse=False),
            *vars(module).values(),
        ):
            if isinstance(entry, Tensor) and entry.is_floating_point():
                entry.add_(1)
    other.load_state_dict(network.state_dict())
    for found, like in zip(asked(other, images), whole, strict=True):
        assert torch.equal(found, like), (
            "with its own state loaded it answers otherwise: a weight is not in the state"
        )
    return f"{len(network.state_dict())} tensors"


def learns(network: nn.Module, asked: Asked, images: Tensor) -> str:
    """Checks that a gradient reaches every parameter."""
    learner = copy.deepcopy(network).train().requires_grad_()
    weights = dict(learner.named_parameters())
    if not weights:
        return "it has no parameters"
    generator = torch.Generator().manual_seed(6)
    with torch.enable_grad():
        loss = torch.zeros(())
        for answer in asked(learner, images):
            loss = loss + (answer * torch.randn(answer.shape, generator=generator).to(answer)).sum()
        loss.backward()
    deaf = [
        name
        for name, weight in weights.items()
        if weight.grad is None or not bool(weight.grad.abs().sum() > 0)
    ]
    assert not deaf, f"no gradient reaches {', '.join(deaf[:3])}"
    return f"{len(weights)} parameters"


def _difference(found: Tensor, like: Tensor) -> float:
    return float((found - like).abs().max() / (1e-6 + like.abs().max()))
