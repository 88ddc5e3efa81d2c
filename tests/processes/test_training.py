"""Every process trains a small network in every parameterization, and what it learnt can be sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.models.card import build_denoiser
from trilemma_plugins.objectives.simple import Simple
from trilemma_plugins.processes.exploding import EDM
from trilemma_plugins.processes.flow import Flow
from trilemma_plugins.processes.preconditioned import Preconditioned

SPECS = ["vp:T=50", "sub-vp", "ve", "edm", "flow", "flow:shift=3.0"]
OPTIONS = {"channels": [8], "blocks": 1, "groups": 4, "patch": 2}


def network(process: str, parameterization: str, spec: str = "unet", **options: Any) -> Denoiser:
    return build_denoiser(
        {
            "process": {"spec": process},
            "denoiser": {"spec": spec, "parameterization": parameterization, "options": OPTIONS | options},
            "data": {"shape": [1, 8, 8]},
        },
        seed=0,
    )


def digits() -> Tensor:
    return lookup.dataset("digits").batch(range(64))[0]


def trained(net: Denoiser, objective: Simple, steps: int) -> list[float]:
    optimizer, losses, x0 = torch.optim.AdamW(net.parameters(), lr=1e-2), [], digits()
    for step in range(steps):
        loss = objective.loss(net, net, x0, {}, torch.Generator().manual_seed(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    net.eval().requires_grad_(False)
    return losses


@pytest.mark.parametrize("parameterization", ["x0", "eps", "v", "score", "flow"])
@pytest.mark.parametrize("process", SPECS)
def test_a_few_steps_of_every_kind(process: str, parameterization: str) -> None:
    net = network(process, parameterization)
    losses = trained(net, Simple(target="eps" if parameterization == "score" else None), 3)
    assert all(loss == loss and loss < float("inf") for loss in losses)
    # A flow's ε̂ and score say nothing at t = 1: their grids begin below it.
    grid = "leading" if process.startswith("flow") and parameterization in ("eps", "score") else "trailing"
    drawn = trilemma.sample(net, 2, sampler=f"ddim:grid={grid}", steps=4)
    assert drawn.samples.isfinite().all()


@pytest.mark.parametrize("process", [EDM(), Flow()], ids=str)
@pytest.mark.parametrize("parameterization", ["x0", "eps", "v", "flow"])
@pytest.mark.parametrize("weighting", ["uniform", "min-snr", "edm"])
def test_no_weight_is_undefined_at_the_ends(process: Any, parameterization: str, weighting: Any) -> None:
    net = Preconditioned(process, network="unet", shape=(1, 8, 8), **OPTIONS)
    net.parameterization = parameterization
    ends = torch.tensor([1e-6, 0.5, 1.0], dtype=torch.float64)
    weights = Simple(weighting=weighting).weights(net, ends)
    assert not weights.isnan().any()
    assert (weights >= 0).all()


def test_an_eps_network_is_refused_where_a_flow_has_no_data_left() -> None:
    with pytest.raises(trilemma.TrilemmaError, match="another grid") as error:
        trilemma.sample(network("flow", "eps").eval(), 1, steps=3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("spec", ["edm", "flow", "ve", "sub-vp"])
def test_preconditioning_keeps_unit_variance_at_every_level(spec: str) -> None:
    """Data of deviation s: what goes in has variance 1, and (x₀ − c_skip z)/c_out, what is asked for, too."""
    net = network(spec, "x0", "edm").double().eval()
    seen: list[Tensor] = []
    net.network.register_forward_pre_hook(lambda module, args: seen.extend(args))
    generator = torch.Generator().manual_seed(0)
    times = torch.tensor([1e-4, 0.01, 0.2, 0.7, 1.0], dtype=torch.float64)
    for t in times:
        alpha, sigma = net.process.alpha(t), net.process.sigma(t)
        x0 = 0.5 * torch.randn(500, 1, 8, 8, generator=generator, dtype=torch.float64)
        z = alpha * x0 + sigma * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        skipped = net(z, t.expand(500))  # the last layer begins at zero, so this is c_skip z
        inside, clock = seen[-2:]
        assert inside.std().item() == pytest.approx(1, rel=0.02)
        assert ((clock >= 0) & (clock <= 1)).all()
        c_out = sigma * 0.5 / (sigma.square() + alpha.square() * 0.25).sqrt()
        assert ((x0 - skipped) / c_out).std().item() == pytest.approx(1, rel=0.02)


def test_preconditioning_tells_the_noise_levels_of_edm_apart() -> None:
    """σ from 0.002 to 80 spreads over the clock, where t itself would be next to 0 for all that matters."""
    net = network("edm", "x0", "edm").eval()
    clocks: list[Tensor] = []
    net.network.register_forward_pre_hook(lambda module, args: clocks.append(args[1]))
    net(torch.zeros(5, 1, 8, 8), torch.tensor([0.002, 0.05, 0.5, 5.0, 80.0]) / 80)
    assert (clocks[0].diff() > 0.1).all()


def test_edm_learns_with_its_preconditioning() -> None:
    objective = Simple(weighting="edm", times="log-normal", mean=-1.2, deviation=1.2)
    losses = trained(network("edm", "x0", "edm"), objective, 40)
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


@pytest.mark.parametrize(
    ("options", "law"),
    [
        ({"times": "log-normal", "mean": -1.2, "deviation": 1.2}, lambda s: s.log()),
        ({"times": "logit-normal", "mean": 0.5, "deviation": 0.8}, None),
    ],
)
def test_training_times_have_their_law(options: Any, law: Any) -> None:
    process = EDM()
    t = Simple(**options).draw_times(process, 4000, torch.Generator().manual_seed(0))
    values = law(process.sigma(t)) if law else torch.logit(t)
    assert values.mean().item() == pytest.approx(options["mean"], abs=0.02)
    assert values.std().item() == pytest.approx(options["deviation"], rel=0.02)


@pytest.mark.parametrize("options", [{"parameterization": "v"}, {"process": "vp"}])
def test_what_cannot_be_preconditioned_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="edm") as error:
        network(options.get("process", "edm"), options.get("parameterization", "x0"), "edm")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("process", "denoiser"),
    [("flow", 'parameterization = "flow"'), ("edm", 'spec = "edm"\nparameterization = "x0"')],
)
def test_a_recipe_trains_and_its_model_is_sampled(process: str, denoiser: str, tmp_path: Path) -> None:
    from trilemma.train.recipe import read_recipe
    from trilemma.train.trainer import train

    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'''
steps = 2
batch_size = 8
tensorboard = false
dataset = {{ spec = "digits" }}
process = {{ spec = "{process}" }}
objective = {{ spec = "simple" }}

[denoiser]
{denoiser}
options = {{ channels = [8], blocks = 1, groups = 4, patch = 2, classes = 10 }}
'''
    )
    result = train(read_recipe(recipe), tmp_path / "run")
    model = trilemma.load(str(result.model))
    drawn = trilemma.sample(model, 2, steps=3, cond={"class": 3}, guidance="cfg:scale=2")
    assert drawn.samples.isfinite().all()
    assert drawn.provenance["process"].startswith(process)
