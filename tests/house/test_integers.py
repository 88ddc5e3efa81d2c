"""What Python takes for an index is an integer, everywhere; a bool is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import trilemma
from trilemma.checks import checked_integer
from trilemma.engine.noise import KeyedNoise
from trilemma.errors import UsageError
from trilemma.interfaces.condition import ClassCondition
from trilemma.numerics import grids
from trilemma.output import destination
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.cld.gddim import GDDIM
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.metrics.manifold import Precision
from trilemma_plugins.points.mlp import MLP
from trilemma_plugins.solvers.deis import DEIS
from trilemma_plugins.solvers.dpm_solver import DPMSolver
from trilemma_plugins.solvers.predictor_corrector import PredictorCorrector
from trilemma_plugins.solvers.restart import Restart
from trilemma_plugins.solvers.sa_solver import SASolver
from trilemma_plugins.solvers.unipc import UniPC
from trilemma_plugins.unet.unet import UNet
from trilemma_plugins.vdm.objective import VariationalBound


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


MODEL = GaussianDenoiser(DiscreteVP(T=50))
IMAGES = torch.zeros(1, *MODEL.shape)


def draw(**options: Any) -> trilemma.Samples:
    return trilemma.sample(MODEL, **{"n": 2, "steps": 2, **options})


PLACES: dict[str, Callable[[Any], Any]] = {
    "n": lambda v: draw(n=v),
    "steps": lambda v: draw(steps=v),
    "seed": lambda v: draw(seed=v),
    "batch_size": lambda v: draw(batch_size=v),
    "index": lambda v: draw(indices=[v]),
    "refine": lambda v: trilemma.invert(MODEL, IMAGES, steps=2, refine=v),
    "steps of a grid": lambda v: grids.times(50, v),
    "label": lambda v: ClassCondition("class", 9).prepare(v),
    "labels": lambda v: ClassCondition("class", 9).prepare([0, v]),
    "seed of noise": lambda v: KeyedNoise(v),
    "columns": lambda v: destination("x.png", v),
    "T": lambda v: DiscreteVP(T=v),
    "k": lambda v: Precision(k=v),
    "points": lambda v: DEIS(points=v),
    "p": lambda v: UniPC(p=v),
    "points of gddim": lambda v: GDDIM(points=v),
    "order": lambda v: DPMSolver(order=v),
    "predictor": lambda v: SASolver(predictor=v),
    "corrector": lambda v: SASolver(corrector=v),
    "steps of a bound": lambda v: VariationalBound(steps=v),
    "grey levels": lambda v: VariationalBound(levels=v),
    "width": lambda v: MLP(DiscreteVP(T=50), width=v, depth=1),
    "depth": lambda v: MLP(DiscreteVP(T=50), width=2, depth=v),
    "blocks": lambda v: UNet(DiscreteVP(T=50), channels=(8,), head=8, blocks=v),
    "corrections": lambda v: PredictorCorrector(corrections=v),
    "pass_steps": lambda v: Restart(pass_steps=v),
    "any": lambda v: checked_integer(v, "any", 0, 9),
    "classifier": lambda v: trilemma.guidance("classifier", label=v),
    "labels of a classifier": lambda v: trilemma.guidance("classifier", label=[v, v]),
    "spec": lambda v: trilemma.sampler("deis", points=v),
}
TWOS = [
    2,
    np.int64(2),
    np.uint8(2),
    np.array(2),
    torch.tensor(2),
    torch.tensor(2, dtype=torch.uint8),
    Index(2),
]
OPTIONAL = ("steps", "columns", "pass_steps", "label", "classifier", "steps of a bound")
NONE = [True, np.True_, torch.tensor(True), 2.0, np.float64(2), "2", None, [2, 2], 2j, object()]


@pytest.mark.parametrize("place", PLACES)
def test_every_integer_is_taken_and_every_bool_refused(place):
    use = PLACES[place]
    for value in TWOS:
        use(value)
    for value in NONE:
        optional = value is None and place in OPTIONAL
        listed = isinstance(value, list) and place in ("label", "classifier")
        if optional or listed:
            continue
        if place == "labels of a classifier" and isinstance(value, list):
            continue
        with pytest.raises(UsageError) as caught:
            use(value)
        assert "np." not in str(caught.value) or "give" in str(caught.value)


def test_numpy_integers_mean_what_pythons_do():
    expected = draw(n=3, steps=2, seed=7, batch_size=2).samples
    given = draw(n=np.int64(3), steps=np.int32(2), seed=np.uint64(7), batch_size=np.int8(2))
    assert torch.equal(given.samples, expected)
    assert type(given.provenance["seed"]) is type(given.provenance["steps"]) is int
    assert torch.equal(draw(indices=np.array([2, 0]), seed=7).samples, expected[[2, 0]])
    assert torch.equal(draw(indices=[np.int16(2), Index(0)], seed=7).samples, expected[[2, 0]])
    assert draw(seed=np.uint64(2**64 - 1)).provenance["seed"] == 2**64 - 1
