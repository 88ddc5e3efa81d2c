"""Checks of every denoiser."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from trilemma.interfaces.denoiser import Denoiser
from trilemma.testing.compiling import network_compiles
from trilemma.testing.conditions import condition_checks, told
from trilemma.testing.empty import without_a_state
from trilemma.testing.outcome import Skipped


def denoiser_checks(denoiser: Denoiser) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    model = copy.deepcopy(denoiser).eval()
    yield "answers in the shape and dtype of the data", lambda: _shape(model)
    yield "inputs are left alone", lambda: _inputs(model)
    yield "a state's answer does not depend on the batch", lambda: _batch(model)
    yield from condition_checks(model)
    yield "weights survive a save", lambda: _saved(model)
    yield "NaN stays in its sample", lambda: _nan(model)
    yield "states in any strides", lambda: _strides(model)
    yield "float32, bfloat16 and float64", lambda: _dtypes(model)
    yield "compiles into one graph", lambda: network_compiles(model, *_asked(model, 2))
    yield "an empty batch gives none", lambda: without_a_state(model, *_asked(model, 1))


def _asked(model: Denoiser, count: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    dtype = next((p.dtype for p in model.own_tensors() if p.is_floating_point()), torch.float32)
    components = model.process.components
    shape = (components * model.shape[0], *model.shape[1:])
    z = torch.randn(count, *shape, generator=generator).to(dtype)
    return z, torch.linspace(0.2, 0.9, count), told(model, count)


@torch.no_grad()
def _answer(model: Denoiser, z: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
    answer: Tensor = model(z, t, **cond)
    return answer


def _shape(model: Denoiser) -> str:
    for count in (1, 3):
        z, t, cond = _asked(model, count)
        answer = _answer(model, z, t, cond)
        expected = (count, *model.shape)
        assert answer.shape == expected, f"answers with shape {tuple(answer.shape)}, not {expected}"
        assert answer.dtype == z.dtype, f"answers {z.dtype} with {answer.dtype}"
        assert bool(answer.isfinite().all()), "its answer is not finite"
    return f"{tuple(model.shape)}"


def _inputs(model: Denoiser) -> str:
    z, t, cond = _asked(model, 2)
    kept = z.clone(), t.clone(), {name: entry.clone() for name, entry in cond.items()}
    _answer(model, z, t, cond)
    assert torch.equal(z, kept[0]), "it writes to the state it is given"
    assert torch.equal(t, kept[1]), "it writes to the times it is given"
    assert all(torch.equal(cond[name], kept[2][name]) for name in cond), "it writes to its conditions"
    return "state, times and conditions"


def _batch(model: Denoiser) -> str:
    z, t, cond = _asked(model, 3)
    whole = _answer(model, z, t, cond)
    alone = torch.cat(
        [
            _answer(model, z[i : i + 1], t[i : i + 1], {k: c[i : i + 1] for k, c in cond.items()})
            for i in range(3)
        ]
    )
    error = float((whole - alone).abs().max() / (1e-6 + whole.abs().max()))
    assert error < 1e-3, f"answers move by {error:.2g} when a state is asked for alone"
    return f"to {error:.1g}"


def _nan(model: Denoiser) -> str:
    """A state that is not finite gives no finite answer, and spoils no other."""
    z, t, cond = _asked(model, 2)
    whole = _answer(model, z, t, cond)
    spoiled = z.clone()
    spoiled[1] = math.nan
    answer = _answer(model, spoiled, t, cond)
    assert not bool(answer[1].isfinite().any()), "a state of NaN has a finite answer"
    error = float((answer[0] - whole[0]).abs().max() / (1e-6 + whole[0].abs().max()))
    assert error < 1e-3, f"an answer moves by {error:.2g} when its neighbour is NaN"
    return "and in no other"


def _strides(model: Denoiser) -> str:
    z, t, cond = _asked(model, 2)
    whole = _answer(model, z, t, cond)
    wide = torch.full((*z.shape[:-1], 2 * z.shape[-1]), 7, dtype=z.dtype)
    wide[..., ::2] = z
    for strided in (
        wide[..., ::2],
        z.flip(0).contiguous().flip(0),
        z.transpose(0, 1).contiguous().transpose(0, 1),
    ):
        error = float((_answer(model, strided, t, cond) - whole).abs().max() / (1e-6 + whole.abs().max()))
        assert error < 1e-3, f"answers move by {error:.2g} when the state is not contiguous"
    return "contiguous and not"


def _dtypes(model: Denoiser) -> str:
    z, t, cond = _asked(model, 2)
    exact = _answer(model, z, t, cond).double()
    for dtype, tolerance in ((torch.float64, 1e-3), (torch.float32, 1e-3), (torch.bfloat16, 0.2)):
        cast = copy.deepcopy(model).to(dtype)
        try:
            answer = _answer(cast, z.to(dtype), t, cond)
        except RuntimeError as error:
            raise AssertionError(f"in {dtype} it raises: {error}") from error
        assert answer.dtype == dtype, f"in {dtype} it answers in {answer.dtype}"
        off = float((answer.double() - exact).abs().max() / (1e-6 + exact.abs().max()))
        assert off < tolerance, f"answers in {dtype} are {off:.2g} off"
    return "they agree"


def _saved(model: Denoiser) -> str:
    state = {name: entry.clone() for name, entry in model.state_dict().items()}
    if not state:
        raise Skipped("it has no weights")
    asked = _asked(model, 2)
    before = _answer(model, *asked)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(state)
    assert torch.equal(before, _answer(other, *asked)), (
        "its answers change when its weights are saved and loaded"
    )
    return f"{len(state)} tensors"
