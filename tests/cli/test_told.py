"""Conditions of every kind by `trilemma sample --cond`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import trilemma
from support.told_gaussian import ToldGaussian, told
from trilemma.cli.app import main
from trilemma.testing.word_encoder import WordEncoder
from trilemma_plugins.ddpm.process import DiscreteVP


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ToldGaussian:
    made = ToldGaussian(DiscreteVP(), list(told(WordEncoder()).values()))
    monkeypatch.setattr(trilemma, "load", lambda *given, **options: made, raising=False)
    return made


def run(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    code = main(["sample", "model", *arguments])
    found = capsys.readouterr()
    return code, found.out, found.err


@pytest.mark.parametrize(
    ("pairs", "value"),
    [
        (["text=a smiling cat"], {"text": "a smiling cat"}),
        (["text=a cat, [black], it's 7"], {"text": "a cat, [black], it's 7"}),
        (['text=["a cat, black", dog]', "style=bold"], {"text": ["a cat, black", "dog"], "style": "bold"}),
        (["level=0.3", "class=seven"], {"level": 0.3, "class": "seven"}),
        (["level=[0.3,-1]", "class=[seven,0]"], {"level": [0.3, -1], "class": ["seven", 0]}),
        (["image=a photo.png", "text=None"], {"image": "a photo.png", "text": "None"}),
        (["image=[a photo.png]"], None),
        (["image=['a photo.png', other.png]"], {"image": ["a photo.png", "other.png"]}),
    ],
)
def test_what_is_written_is_what_python_takes(
    model: ToldGaussian,
    capsys: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pairs: list[str],
    value: dict[str, Any] | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (4, 4), 90).save("a photo.png")
    Image.new("RGB", (9, 5), (90, 0, 0)).save("other.png")
    told = [word for pair in pairs for word in ("--cond", pair)]
    options = ["-n", "3", "--steps", "2", "--guidance", "cfg:scale=3", "--out", "x.npz", "--json"]
    code, out, err = run(capsys, *told, *options)
    if value is None:
        assert code == 2
        assert "quotes" in err
        return
    assert code == 0, err
    drawn = trilemma.sample(model, 3, steps=2, guidance="cfg:scale=3", cond=value, dtype=torch.float32)
    assert json.loads(out)["cond"] == drawn.provenance["cond"]


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ("level=2", "level=2 is out of range; give a number from -1 to 1"),
        ("level=loud", "level='loud' is out of range; give a number"),
        ("image=nowhere.png", "cannot read nowhere.png: No such file"),
        ("image=.", "cannot read ."),
        ("class=sevn", "did you mean 'seven'"),
        ("caption=a cat", "unknown condition 'caption'; this model takes: class, level, image, text, style"),
        ("text=[a cat, dog]", "quotes"),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_line(
    model: ToldGaussian, capsys: Any, tmp_path: Path, pair: str, reason: str
) -> None:
    code, _, err = run(capsys, "--cond", pair, "--steps", "2", "--out", str(tmp_path / "x.npz"))
    assert code == 2
    assert reason in err
    assert len(err.strip().splitlines()) == 1
