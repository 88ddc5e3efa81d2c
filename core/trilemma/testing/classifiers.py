"""Checks of every classifier."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from trilemma.interfaces.classifier import Classifier
from trilemma.testing import networks
from trilemma.testing.generators import keeps_global_generators
from trilemma.testing.outcome import Skipped

Check = tuple[str, Callable[[], str]]


def classifier_checks(classifier: Classifier) -> Iterator[Check]:
    """Yields pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    network = copy.deepcopy(classifier).eval()
    dtype = next((entry.dtype for entry in network.parameters()), torch.float32)
    states = networks.pictures(network.shape, dtype=dtype)
    yield "logits are finite, one a class", lambda: _logits(network, states)
    for name, check in (
        ("a state's logits do not depend on its batch", networks.asked_alone),
        ("states are left alone", networks.left_alone),
        ("NaN stays in its state", networks.asked_with_nan),
        ("an empty batch gives none", networks.asked_for_nothing),
        ("float32, bfloat16 and float64", networks.asked_in_dtypes),
        ("weights survive a save", networks.saved),
        ("gradients reach every weight", networks.learns),
    ):
        yield name, partial(check, network, _asked, states)
    yield (
        "no global generator is drawn from",
        lambda: keeps_global_generators(lambda: _asked(network, states)),
    )
    yield "gradients reach the state", lambda: _guides(network, states)
    yield "the time is heard", lambda: _hears_the_time(network, states)


def _asked(network: nn.Module, states: Tensor) -> Sequence[Tensor]:
    return [_at(network, states, 0.3)]


def _at(network: nn.Module, states: Tensor, t: float) -> Tensor:
    """The logits at a time; at 0 of a classifier that knows no noise."""
    known = t if getattr(network, "process", None) is not None else 0.0
    wide = torch.promote_types(states.dtype, torch.float32)
    logits: Tensor = network(states, torch.full((len(states),), known, dtype=wide))
    return logits


@torch.no_grad()
def _logits(network: Classifier, states: Tensor) -> str:
    assert network.classes, "it has no classes"
    for count in (1, len(states)):
        (logits,) = _asked(network, states[:count])
        expected = (count, len(network.classes))
        assert tuple(logits.shape) == expected, f"logits have shape {tuple(logits.shape)}, not {expected}"
        assert bool(logits.isfinite().all()), "logits are not finite"
    return f"{len(network.classes)} classes"


def _guides(network: Classifier, states: Tensor) -> str:
    with torch.enable_grad():
        state = states.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(_at(network, state, 0.3).log_softmax(1)[:, 0].sum(), state)
    assert bool(gradient.isfinite().all()), "∇_z log p is not finite"
    silent = ~(gradient.flatten(1).abs().sum(1) > 0)
    assert not bool(silent.any()), "∇_z log p is 0 in a state"
    return "of each state"


@torch.no_grad()
def _hears_the_time(network: Classifier, states: Tensor) -> str:
    if network.process is None:
        raise Skipped("it is of data without noise")
    early, late = (_at(network, states, t) for t in (0.2, 0.8))
    moved = float((early - late).abs().max())
    assert moved > 0, "the same state has the same logits at all times"
    return f"logits move by {moved:.2g}"
