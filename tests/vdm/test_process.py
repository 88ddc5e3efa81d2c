"""The process: closed forms, the kit's checks, every sampler, gradients, and weights that keep float64."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from trilemma import lookup
from trilemma.engine.drawing import sample
from trilemma.errors import UsageError
from trilemma.models import card as model_directory
from trilemma.registry import building
from trilemma.testing import GaussianDenoiser, check_process
from trilemma_plugins.vdm.process import VDM

SCHEDULES = ("linear", "cosine", "learned")


def bent(schedule: str = "learned") -> VDM:
    """A schedule whose interior is far from the linear one."""
    process = VDM(schedule, width=32)  # type: ignore[arg-type]
    if schedule == "learned":
        with torch.no_grad():
            process.interior.kernel3[:12] += 3.0
    return process


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_kit_finds_nothing(schedule: str) -> None:
    for record in check_process(bent(schedule)):
        assert record.status == "passed", record


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_gamma_runs_between_its_ends(schedule: str) -> None:
    process = bent(schedule)
    gamma = process.gamma(torch.linspace(0, 1, 101, dtype=torch.float64))
    torch.testing.assert_close(gamma[[0, -1]].detach(), torch.tensor([-13.3, 5.0], dtype=torch.float64))
    assert bool((gamma.diff() > 0).all())
    torch.testing.assert_close(
        process.alpha(torch.tensor(0.3)) ** 2 + process.sigma(torch.tensor(0.3)) ** 2,
        torch.ones((), dtype=torch.float64),
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_slope_is_the_derivative(schedule: str) -> None:
    process = bent(schedule)
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    _, slope = torch.func.jvp(process.gamma, (t,), (torch.ones_like(t),))
    torch.testing.assert_close(process.slope(t), slope, rtol=1e-10, atol=1e-10)


def test_cosine_is_the_angle() -> None:
    """α_t = cos(a t + b) with tan b = e^{γ₀/2}."""
    process = VDM("cosine")
    b = math.atan(math.exp(-13.3 / 2))
    a = math.atan(math.exp(2.5)) - b
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(process.alpha(t), (a * t + b).cos(), rtol=1e-12, atol=1e-12)


def test_transitions_do_not_cancel() -> None:
    """Q of a step of 1e-9 is σ² γ' dt to eight digits; σ_t² − Ψ² σ_s² would keep none."""
    process = VDM()
    s, t = torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.5 + 1e-9, dtype=torch.float64)
    Q = process.transition(s, t)[1].item()
    assert pytest.approx(process.sigma(s).item() ** 2 * 18.3 * float(t - s), rel=1e-7) == Q


@pytest.mark.parametrize("name", building.samplers_of_components(1))
def test_every_sampler_runs_on_a_learned_schedule(name: str) -> None:
    """Samples of N(0, ¼) come out finite and about as wide."""
    denoiser = GaussianDenoiser(bent(), shape=(1, 16, 16))
    found = sample(denoiser, 8, sampler=name, steps=40, seed=1, dtype=torch.float64)
    images = found.samples
    assert bool(images.isfinite().all())
    assert 0.05 < float(images.var()) < 0.6, name


def test_the_schedule_is_saved_with_the_network(tmp_path: Path) -> None:
    options = {"channels": [8], "blocks": 1, "groups": 4}
    card = {
        "model": {"name": "m"},
        "process": {"spec": "vdm:schedule=learned,width=16"},
        "denoiser": {"spec": "unet", "parameterization": "eps", "options": options},
        "data": {"shape": [1, 8, 8]},
    }
    denoiser = model_directory.build_denoiser(card, seed=0)
    assert {"process.ends", "process.interior.kernel3"} <= set(denoiser.state_dict())
    with torch.no_grad():
        denoiser.process.ends += 1.25
        denoiser.process.interior.kernel3[:4] += 3.0
    model_directory.save_model(tmp_path / "m", card, {k: v.float() for k, v in denoiser.state_dict().items()})
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    for dtype in (torch.float32, torch.bfloat16):
        loaded = model_directory.load_model(tmp_path / "m", dtype=dtype)
        torch.testing.assert_close(
            loaded.process.log_snr(t), denoiser.process.log_snr(t), rtol=1e-6, atol=1e-6
        )
        assert not loaded.process.ends.requires_grad


def test_gradients_flow_to_the_schedule_only_by_gamma() -> None:
    process = VDM("learned", width=8)
    t = torch.linspace(0, 1, 5)
    assert not process.alpha(t).requires_grad
    (process.gamma(t) * torch.linspace(1, 2, 5)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in process.parameters())


def test_fixed_schedules_have_nothing_to_train() -> None:
    assert not list(VDM("cosine").parameters())
    assert not VDM("cosine").state_dict()
    assert [name for name, _ in VDM("linear", endpoints=True).named_parameters()] == ["ends"]


@pytest.mark.parametrize("spec", ["vdm:schedule=cubic", "vdm:gamma_min=5,gamma_max=5", "vdm:width=0"])
def test_bad_options_are_refused(spec: str) -> None:
    with pytest.raises(UsageError):
        lookup.process(spec)


def test_a_network_has_its_own_dtype_beside_the_schedule() -> None:
    """Samples of a network in bfloat16 on a learned schedule, which stays in float64."""
    torch.manual_seed(0)
    options = {"channels": [8], "blocks": 1, "groups": 4}
    network = lookup.denoiser("unet", process=bent(), shape=(1, 8, 8), **options).to(torch.bfloat16).eval()
    assert {entry.dtype for entry in network.own_tensors()} == {torch.bfloat16}
    assert network.process.ends.dtype == torch.float64
    found = sample(network.requires_grad_(False), 2, sampler="ddim", steps=4, seed=0)
    assert bool(found.samples.isfinite().all())
