"""Conditions on their way through a request: prepared once, recorded, compared when a folder is gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import trilemma
from support.told_gaussian import SHAPE, ToldGaussian, told
from trilemma.errors import OutputError
from trilemma.testing.word_encoder import WordEncoder
from trilemma_plugins.ddpm.process import DiscreteVP

TEXTS = ["a cat", "a very big dog", ""]


def network(encoder: WordEncoder, *names: str) -> ToldGaussian:
    known = told(encoder)
    return ToldGaussian(DiscreteVP(), [known[name] for name in names or known])


@pytest.mark.parametrize(
    "guidance", [None, "cfg:scale=3", "cfg:scale=3,drop=text+cfg:scale=2,drop=level", "cfg+interval:lo=0.2"]
)
@pytest.mark.parametrize("sampler", ["ddim", "rk"])
def test_texts_are_encoded_once_a_request(guidance: str | None, sampler: str) -> None:
    encoder = WordEncoder()
    model = network(encoder, "text", "level")
    cond = {"text": TEXTS, "level": [0.1, 0.2]}
    options: dict[str, Any] = {"sampler": sampler, "steps": 3, "guidance": guidance, "cond": cond}
    trilemma.sample(model, 20, batch_size=3, **options)
    assert encoder.calls == [TEXTS]


@pytest.mark.parametrize("guidance", [None, "cfg:scale=3"])
def test_a_sample_is_told_the_same_alone_and_in_any_chunks(guidance: str | None) -> None:
    model = network(WordEncoder())
    images = 2 * torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0)) - 1
    cond = {"text": TEXTS, "style": TEXTS[:2], "level": [0.5, None], "image": images, "class": [1, 0, None]}
    options: dict[str, Any] = {"steps": 4, "guidance": guidance, "cond": cond, "seed": 3}
    whole = trilemma.sample(model, 14, **options).samples
    assert torch.equal(whole, trilemma.sample(model, 14, batch_size=3, **options).samples)
    assert torch.equal(whole[11:], trilemma.sample(model, indices=[11, 12, 13], **options).samples)
    own = {"text": TEXTS[2], "style": TEXTS[1], "level": None, "image": images[1], "class": None}
    alone = trilemma.sample(model, indices=[11], **{**options, "cond": own}).samples
    assert torch.equal(whole[11:12], alone)


def test_the_record_holds_short_values_and_digests_of_long_ones(tmp_path: Path) -> None:
    model = network(WordEncoder())
    path = tmp_path / "photo.png"
    Image.new("L", (6, 4), 30).save(path)

    def recorded(**cond: Any) -> Any:
        return trilemma.sample(model, 1, steps=1, cond=cond).provenance

    found = recorded(text="a cat", level=0.5, style=["a", "b"], **{"class": "seven"})
    assert found["cond"] == {"text": "a cat", "level": 0.5, "style": ["a", "b"], "class": "seven"}
    assert found["encoders"] == {"text": "words 8", "style": "words 8"}
    assert recorded(level=0.5)["encoders"] is None
    picture = recorded(image=str(path))["cond"]["image"]
    assert picture.startswith("image <tensor 1x1x2x2 float32 sha256:")
    assert recorded(image=torch.full((1, 4, 6), 30, dtype=torch.uint8))["cond"]["image"] == picture
    Image.new("L", (6, 4), 31).save(path)
    assert recorded(image=path)["cond"]["image"] != picture
    long = recorded(text=["word " * 6] * 400)["cond"]["text"]
    assert long.startswith("<400 texts sha256:")
    assert long != recorded(text=["word " * 6] * 399 + ["word"])["cond"]["text"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("text", ("a cat", "a dog")),
        ("text", (["a"] * 5000, ["a"] * 4999 + ["b"])),
        ("image", (torch.zeros(SHAPE), torch.ones(SHAPE))),
        ("level", (0.25, 0.5)),
        ("encoder", (8, 9)),
    ],
    ids=["text", "texts", "image", "number", "encoder"],
)
def test_a_folder_is_gone_on_with_under_the_same_conditions_alone(
    tmp_path: Path, name: str, values: Any
) -> None:
    def drawn(value: Any) -> None:
        width, cond = (value, {"text": "a"}) if name == "encoder" else (8, {name: value})
        model = network(WordEncoder(width))
        trilemma.sample(model, 2, steps=1, cond=cond, seed=1).save(tmp_path / "out")

    drawn(values[0])
    drawn(values[0])
    with pytest.raises(OutputError, match="holds samples of another run"):
        drawn(values[1])
