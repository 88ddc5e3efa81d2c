"""`trilemma sweep`: quality against one option, of a cascade whose best level of noise is known."""

from __future__ import annotations

import importlib
import json

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from support.blocks import Blocks, spread
from trilemma.cli.app import main
from trilemma.errors import UsageError
from trilemma.evaluate import Observation, parse_swept
from trilemma.interfaces.dataset import InMemoryDataset
from trilemma.models.card import save_model
from trilemma.testing import GaussianDenoiser

BETWEEN, WITHIN = 0.04, 0.01


class BlockImages(InMemoryDataset):
    """1,000 images of the law that the cascade has but for its faults."""

    def __init__(self, split: str = "train") -> None:
        generator = torch.Generator().manual_seed(0 if split == "train" else 1)
        means = BETWEEN**0.5 * torch.randn(1000, 1, 2, 2, generator=generator)
        inner = WITHIN**0.5 * torch.randn(1000, 1, 4, 4, generator=generator)
        images = spread(means) + inner - spread(avg_pool2d(inner, 2))
        levels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        super().__init__(levels, torch.zeros(1000, dtype=torch.int64), ())


class BlockMeans:
    """A feature network whose features are the means of the blocks."""

    identity = "block means"

    def takes(self, shape: tuple[int, ...]) -> bool:
        return tuple(shape) == (1, 4, 4)

    def observe(self, images: Tensor, labels: Tensor | None = None) -> Observation:
        return Observation(avg_pool2d(images, 2).flatten(1), None, labels)


@pytest.fixture
def folder(tmp_path, register):
    """The first stage is too bright by 0.16, the second one's own mean too dark by 0.12."""
    register("denoiser", "test-gaussian", GaussianDenoiser)
    register("denoiser", "test-blocks", Blocks)
    register("dataset", "block-images", BlockImages)
    register("metric", "block-means", BlockMeans)
    for name, spec, side, options in (
        ("low", "test-gaussian", 2, {"mean": 0.16, "variance": BETWEEN}),
        ("high", "test-blocks", 4, {"mean": -0.12, "between": BETWEEN, "within": WITHIN}),
    ):
        card = {
            "model": {"name": name},
            "process": {"spec": "vp-continuous"},
            "denoiser": {"spec": spec, "parameterization": "v", "options": options},
            "data": {"shape": [1, side, side]},
        }
        save_model(tmp_path / name, card, {})
    stages = [{"model": f"../{name}", "sampler": "dpmpp-2m", "steps": 20} for name in ("low", "high")]
    card = {"model": {"name": "both", "kind": "cascade"}, "stage": stages}
    card["evaluation"] = {"dataset": "block-images", "features": "block-means"}
    save_model(tmp_path / "both", card, {})
    return tmp_path / "both"


def test_the_curve_has_its_minimum_where_the_faults_meet(folder, tmp_path, capsys):
    out = tmp_path / "results" / "noise.png"
    command = ["sweep", str(folder), "--option", "stage.2.noise=0,0.22,0.6", "-n", "1000", "--no-progress"]
    assert main([*command, "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("stage.2.noise=0.22: frechet ")
    records = json.loads(out.with_suffix(".json").read_text())
    distances = [record["metrics"]["frechet"] for record in records]
    assert [record["value"] for record in records] == [0, 0.22, 0.6]
    assert [record["stages"][1]["noise"] for record in records] == [0, 0.22, 0.6]
    assert distances[1] < 0.2 * min(distances[0], distances[2])
    # Four means of 0.16 each.
    assert distances[0] == pytest.approx(4 * 0.16**2, rel=0.15)
    text = out.with_suffix(".md").read_text()
    assert "| stage.2.noise | frechet | NFE | images/s |" in text
    assert len([line for line in text.splitlines() if line.startswith("| 0")]) == 3
    assert out.read_bytes()[:4] == b"\x89PNG"
    assert main([*command, "--out", str(tmp_path / "noise")]) == 2
    assert "is no FILE.png, which the curve needs" in capsys.readouterr().err


def test_other_options_and_json(folder, capsys):
    command = ["sweep", str(folder), "-n", "50", "--json", "--no-progress", "--option"]
    assert main([*command, "stage.1.steps=2,4"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["nfe"] for record in records] == [22, 24]
    assert main([*command, "stage.2.sampler=[ddim,unipc]", "--stage", "2:noise=0.2,steps=3"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["stages"][1]["sampler"].partition(":")[0] for record in records] == ["ddim", "unipc"]
    assert {record["stages"][1]["noise"] for record in records} == {0.2}
    assert {record["stages"][1]["steps"] for record in records} == {3}
    assert main([*command, "seed=0,1"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["metrics"] != second["metrics"]


def test_a_cascade_is_measured_as_a_model_is(folder, capsys):
    command = ["eval", str(folder), "-n", "200", "--metric", "frechet", "--no-progress"]
    assert main([*command, "--json", "--stage", "2:noise=0.22"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["stages"][1]["noise"] == 0.22
    assert record["metrics"]["frechet"] < 0.05
    assert main(command) == 0
    assert "both: 200 samples by dpmpp-2m" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stage.2.noise", "is not NAME=VALUES; write for example"),
        ("stage.2.noise=", "is not NAME=VALUES"),
        ("stage.2.clip=1", "unknown option 'stage.2.clip'; give one of"),
        ("stage.two.noise=1", "unknown option"),
        ("n=1,2", "unknown option 'n'"),
        ("steps=[]", "has no values; give some"),
        ("stage.2.noise=0,0.95", "noise=0.95 is beyond what its model was trained with"),
        ("stage.3.steps=2", "there is no stage 3"),
        ("steps=5", "steps= is for one model"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_drawn(folder, text, words, capsys):
    assert main(["sweep", str(folder), "--option", text, "-n", "20", "--no-progress"]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_values_are_literals_or_words():
    assert parse_swept("stage.2.noise=0, 0.5").values == (0, 0.5)
    assert parse_swept("sampler=[ddim(eta=1),unipc]").values == ("ddim:eta=1", "unipc")
    assert parse_swept("cond.low_level=1").values == (1,)
    with pytest.raises(UsageError, match="unknown option"):
        parse_swept("cond.=1")


def test_a_sweep_that_is_stopped_leaves_what_it_has_measured(folder, tmp_path, monkeypatch, capsys):
    sweeping = importlib.import_module("trilemma.evaluate.sweep")
    found, real = [], sweeping.evaluate

    def stopped(*given):
        if found:
            raise KeyboardInterrupt
        found.append(real(*given))
        return found[0]

    monkeypatch.setattr(sweeping, "evaluate", stopped)
    command = ["sweep", str(folder), "--option", "stage.2.noise=0,0.2", "-n", "20", "--no-progress"]
    assert main([*command, "--out", str(tmp_path / "curve.png")]) == 130
    (record,) = json.loads((tmp_path / "curve.json").read_text())
    assert record["value"] == 0
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
