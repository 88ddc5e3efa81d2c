"""The perceptron: conformance with weights that count, shapes of any process, conditions."""

from __future__ import annotations

import pytest
import torch

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.testing import check_denoiser
from trilemma_plugins.points.mlp import MLP

Z = torch.randn(3, 2, 1, 1, generator=torch.Generator().manual_seed(1))


def network(process: str = "vp", parameterization: str = "v", **options: object) -> Denoiser:
    """One in which no layer is zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = MLP(lookup.process(process), parameterization, **{"width": 16, **options})
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize(("process", "parameterization"), [("vp", "v"), ("flow", "flow"), ("cld", "eps")])
@pytest.mark.parametrize("classes", [0, 3])
def test_it_conforms(process: str, parameterization: str, classes: int) -> None:
    records = check_denoiser(network(process, parameterization, classes=classes))
    failed = [f"{record.name}: {record.reason}" for record in records if record.failed]
    assert not failed, "\n".join(failed)


def test_waves_of_the_state_go_in_beside_it() -> None:
    """With the state's own weights at zero, the answer repeats after the period 2 of the lowest wave."""
    made = network("flow", "flow", octaves=3)
    assert made.inlet.in_features == 2 * (1 + 2 * 3)
    t = torch.full((3,), 0.5)
    far = Z + torch.tensor([2.0, -4.0]).view(2, 1, 1)
    assert not torch.allclose(made(Z, t), made(far, t), atol=1e-3)
    made.inlet.weight[:, :2] = 0
    torch.testing.assert_close(made(Z, t), made(far, t), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(made(Z, t), made(Z + 1, t), atol=1e-3)
    failed = [record.reason for record in check_denoiser(network(octaves=3)) if record.failed]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("null", [False, True])
def test_it_is_told_numbers(null: bool) -> None:
    level = {"kind": "scalar", "name": "level", "low": 1, "high": 4, "null": null}
    records = check_denoiser(network(classes=2, conditions=[level]))
    failed = [f"{record.name}: {record.reason}" for record in records if record.failed]
    assert not failed, "\n".join(failed)


def test_numbers_change_nothing_at_first() -> None:
    """Each network draws the same initial weights, and hears no number before it has learned to."""
    conditions = [{"kind": "scalar", "name": "level", "low": 1, "high": 4}]
    made = []
    for options in ({}, {"conditions": conditions}):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made.append(MLP(lookup.process("vp"), width=8, **options))
    plain, told = made
    assert all(torch.equal(told.state_dict()[key], entry) for key, entry in plain.state_dict().items())
    hearing = told.level_embedding
    assert not hearing(torch.tensor([1.0, 3.0])).any()


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"kind": "class", "name": "style", "size": 2}, "'style' is of the kind class; give scalars"),
        ({"kind": "scalar", "name": "time"}, "'time' of a condition is taken"),
    ],
)
def test_conditions_that_it_refuses(condition: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        network(conditions=[condition])


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 3, 4), (5, 1, 2)])
@pytest.mark.parametrize("process", ["vp", "cld"])
def test_one_component_is_answered_whatever_the_state_has(process: str, shape: tuple[int, int, int]) -> None:
    net = network(process, "eps", shape=shape)
    z = torch.randn(4, net.process.components * shape[0], *shape[1:])
    assert net(z, torch.rand(4)).shape == (4, *shape)
    moved = z.clone()
    moved[:, 0] += 1  # the position, of a process that has one
    assert (net(moved, torch.full((4,), 0.5)) - net(z, torch.full((4,), 0.5))).abs().amin() > 0


@pytest.mark.parametrize("parameterization", ["x0", "eps", "v", "score", "flow"])
def test_a_fresh_network_predicts_zero(parameterization: str) -> None:
    torch.manual_seed(0)
    net = MLP(lookup.process("vp"), parameterization, classes=2, width=8)
    assert not net(Z, torch.rand(3), **{"class": torch.tensor([0, 1, 2])}).any()


def test_time_class_and_null_class_all_matter() -> None:
    net = network(classes=3)

    def answer(t: float, label: int) -> torch.Tensor:
        return net(Z[:1], torch.tensor([t]), **{"class": torch.tensor([label])})

    null = net.conditions["class"].null
    outputs = [answer(0.1, 0), answer(0.9, 0), answer(0.1, 2), answer(0.1, null)]
    for i, first in enumerate(outputs):
        for second in outputs[i + 1 :]:
            assert (first - second).abs().max() > 1e-4


@pytest.mark.parametrize("options", [{"width": 0}, {"depth": 0}])
def test_what_it_refuses(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1") as caught:
        network(**options)
    assert "\n" not in str(caught.value)
