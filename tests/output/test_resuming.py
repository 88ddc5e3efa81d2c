"""A folder of samples is gone on with only by what began it: any option that differs is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import trilemma
from trilemma.engine.noise import InjectedNoise
from trilemma.errors import OutputError
from trilemma.interfaces.condition import ClassCondition, Prepared
from trilemma.interfaces.sampler import Sampler
from trilemma.models.card import build_denoiser, load_model, save_model
from trilemma.output import SampleFolder
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.guidances.autoguidance import Autoguidance
from trilemma_plugins.guidances.classifier import Classifier
from trilemma_plugins.guidances.interval import Interval

CARD = {
    "model": {"name": "tiny"},
    "process": {"spec": "vp:schedule=cosine,T=50"},
    "denoiser": {
        "spec": "unet",
        "parameterization": "v",
        "options": {"channels": [8], "blocks": 1, "classes": 3, "groups": 4},
    },
    "data": {"shape": [1, 8, 8]},
}


def network(seed: int) -> trilemma.Denoiser:
    made = build_denoiser(CARD, seed=0).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for tensor in made.own_tensors():
        tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    return made


NETWORK = network(0)


@dataclass(frozen=True)
class Weighted(Sampler):
    """DDIM with a table that it ignores."""

    table: Any = None

    order = 1
    deterministic = True

    def plan(self, process: Any, times: Tensor) -> Any:
        return DDIM().plan(process, times)


class ByHand(Weighted):
    """A sampler that is no dataclass of its own."""

    def __init__(self, table: Any) -> None:
        object.__setattr__(self, "_inner", {"table": table})
        object.__setattr__(self, "table", None)


def judge(seed: int) -> torch.nn.Module:
    made = torch.nn.Linear(1, 1, bias=False).requires_grad_(False)
    made.weight.fill_(seed)
    made.forward = lambda z, t: z.flatten(1)[:, :3] * made.weight  # type: ignore[method-assign]
    return made.eval()


class Embedded(ClassCondition):
    """A condition that is an embedding and says nothing to the network."""

    def prepare(self, value: Any) -> Prepared:
        return Prepared({self.name: torch.zeros(1, dtype=torch.int64)})


def embedded() -> trilemma.Denoiser:
    made = network(0)
    made.conditions = {"class": Embedded("class", 3)}
    return made


def vp(schedule: str) -> trilemma.Denoiser:
    return GaussianDenoiser(DiscreteVP(schedule=schedule, T=50))


CHANGES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "numpy eta": lambda v: {"sampler": DDIM(eta=np.float64(0.25 + v / 2))},
    "eta of a spec": lambda v: {"sampler": f"ddim:eta={0.25 + v / 2}"},
    "listed grid": lambda v: {"sampler": DDIM(grid=torch.tensor([0.9, 0.5 + v / 5, 0.2]))},
    "table": lambda v: {"sampler": Weighted(np.full(3, v))},
    "function": lambda v: {"sampler": Weighted(lambda x: x + v)},
    "by hand": lambda v: {"sampler": ByHand(v)},
    "interval": lambda v: {"guidance": Interval(0.1, 0.5 + v / 4, guidance=CFG(3.0)), "cond": {"class": 1}},
    "weaker model": lambda v: {"guidance": Autoguidance(network(7 + v))},
    "classifier": lambda v: {"guidance": Classifier(judge(v), label=1)},
    "weights": lambda v: {"model": network(v)},
    "process": lambda v: {"model": vp("cosine" if v else "linear")},
    "latent": lambda v: {"latent": torch.full((2, 1, 8, 8), 0.1 + v)},
    "start": lambda v: {"start": torch.full((2, 1, 8, 8), 0.1 + v / 4)},
    "strength": lambda v: {"start": torch.zeros(2, 1, 8, 8), "strength": 0.4 + v / 4},
    "noise": lambda v: {
        "noise": InjectedNoise(torch.full((2, 1, 8, 8), 0.1 + v), torch.zeros(3, 2, 1, 8, 8)),
    },
    "seed": lambda v: {"seed": np.int64(v)},
    "class": lambda v: {"cond": {"class": torch.tensor([0, v])}},
    "embedding": lambda v: {"model": embedded(), "cond": {"class": torch.full((77, 9), float(v))}},
    "nested embedding": lambda v: {"model": embedded(), "cond": {"class": [[float(v)] * 99] * 7}},
    "flat embedding": lambda v: {"model": embedded(), "cond": {"class": np.full(768, float(v))}},
    "many labels": lambda v: {"cond": {"class": [v] * 5000}},
}


def draw(folder: Path, options: dict[str, Any]) -> int:
    """Draws two samples into a folder; how many it drew."""
    given = {"model": NETWORK, "steps": 3, **options}
    chunks = trilemma.sample_chunks(given.pop("model"), 2, **given)
    with SampleFolder(folder, chunks.provenance) as target:
        missing = target.missing([0, 1])
        for indices, samples in chunks if missing else ():
            target.add(indices.tolist(), samples.clamp(-9, 9))
        target.finish(chunks.provenance)
    return len(missing)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_folder_is_gone_on_with_by_the_same_options_alone(tmp_path, change):
    folder = tmp_path / "out"
    assert draw(folder, change(0)) == 2
    assert draw(folder, change(0)) == 0
    with pytest.raises(OutputError, match="holds samples of another run") as caught:
        draw(folder, change(1))
    assert len(str(caught.value)) < 300
    for path in folder.glob("*"):
        assert path.stat().st_size < 40_000


def test_loaded_weights_that_were_changed_are_other_weights(tmp_path):
    save_model(tmp_path / "model", CARD, NETWORK.state_dict())
    stated = load_model(tmp_path / "model").card["weights"]["sha256"]

    def sha256(changed: Callable[[Any], object]) -> str:
        model = load_model(tmp_path / "model")
        before = trilemma.sample(model, 1, steps=1).provenance["model"]["sha256"]
        assert before == stated
        changed(model)
        return trilemma.sample(model, 1, steps=1).provenance["model"]["sha256"]

    def replaced(model: Any) -> None:
        model.outlet.bias = torch.nn.Parameter(model.outlet.bias + 1, requires_grad=False)

    other = {name: tensor + 0.1 for name, tensor in NETWORK.state_dict().items()}
    assert sha256(lambda model: None) == stated
    assert sha256(lambda model: model.double().float()) == stated
    found = [
        sha256(lambda model: model.outlet.bias.add_(1)),
        sha256(lambda model: model.load_state_dict(other)),
        sha256(lambda model: model.load_state_dict(other, assign=True)),
        sha256(replaced),
    ]
    assert stated not in found
    assert found[1] == found[2]
    assert found[0] == found[3]


def test_a_condition_of_one_label_a_sample_is_kept_and_an_embedding_is_not():
    labels = trilemma.sample(NETWORK, 2, steps=1, cond={"class": np.array([0, 2])}).provenance["cond"]
    assert labels == {"class": [0, 2]}
    assert trilemma.sample(NETWORK, 2, steps=1, cond={"class": np.int8(2)}).provenance["cond"] == {"class": 2}
    found = trilemma.sample(embedded(), 2, steps=1, cond={"class": torch.zeros(77, 768)}).provenance["cond"]
    assert found["class"].startswith("<tensor 77x768 float32 sha256:")
    nested = trilemma.sample(embedded(), 2, steps=1, cond={"class": [[0.5] * 768] * 77}).provenance["cond"]
    assert nested["class"].startswith("<list 77x768 sha256:")
