"""`trilemma upscale`: one picture or a folder, tile by tile, by a model whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from support.blocks import Blocks, spread
from trilemma.cli.app import main
from trilemma.engine.upscaling import Upscaler
from trilemma.errors import UsageError
from trilemma.models.card import save_model
from trilemma.output import provenance
from trilemma.testing import GaussianDenoiser

PROCESS = trilemma.process("vp-continuous")
EXACT = {"between": 4.0, "within": 1e-8}


@pytest.fixture
def folder(tmp_path, register):
    """A model that gives each small pixel to a block of four."""
    register("denoiser", "test-blocks", Blocks)
    card = {
        "model": {"name": "twice"},
        "process": {"spec": "vp-continuous"},
        "denoiser": {"spec": "test-blocks", "parameterization": "v", "options": EXACT},
        "data": {"shape": [1, 8, 8]},
    }
    save_model(tmp_path / "twice", card, {})
    return tmp_path / "twice"


def picture(height: int, width: int) -> torch.Tensor:
    return 1.6 * torch.rand(1, height, width, generator=torch.Generator().manual_seed(0)) - 0.8


@pytest.mark.parametrize(("height", "width"), [(4, 4), (4, 7), (11, 18)])
def test_a_picture_of_any_size_is_enlarged_without_seams(height, width):
    upscale = Upscaler(Blocks(PROCESS, "v", (1, 8, 8), **EXACT))
    assert (upscale.factor, upscale.image, upscale.level) == (2, "low", "low_level")
    small = picture(height, width)
    large, record = upscale(small, steps=30, sampler="ddim")
    assert large.shape == (1, 2 * height, 2 * width)
    torch.testing.assert_close(large, spread(small[None])[0], atol=5e-3, rtol=0)
    assert record["cond"]["low_level"] == 25.0


def test_noise_is_put_on_and_told():
    upscale = Upscaler(Blocks(PROCESS, "v", (1, 8, 8), between=0.25, within=1e-8))
    flat = torch.full((1, 40, 40), 0.5)
    plain, _ = upscale(flat, steps=30)
    spoilt, record = upscale(flat, 0.6, steps=30)
    weight = 0.64 * 0.25 / (0.64 * 0.25 + 0.36)
    assert float(plain.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(spoilt.mean()) == pytest.approx(0.5 * weight, abs=0.05)
    assert record["cond"]["low_level"] == pytest.approx(np.log(0.64 / 0.36), rel=1e-5)


def test_one_picture_and_a_folder(folder, tmp_path, capsys):
    levels = ((picture(6, 5) + 1) * 127.5).round().to(torch.uint8)
    (tmp_path / "in" / "more").mkdir(parents=True)
    for name in ("a.png", "more/b.png"):
        Image.fromarray(levels[0].numpy()).save(tmp_path / "in" / name)
    command = [
        "upscale",
        str(folder),
        str(tmp_path / "in" / "a.png"),
        "--out",
        str(tmp_path / "big.png"),
        "--steps",
        "30",
    ]
    assert main(command) == 0
    assert "big.png: 12×10 (H×W), NFE 30 a tile" in capsys.readouterr().out
    found = np.asarray(Image.open(tmp_path / "big.png")).astype(int)
    assert np.abs(found - np.kron(levels[0].numpy(), np.ones((2, 2), int))).max() <= 2
    assert provenance(tmp_path / "big.png")["upscaled"] == "a.png"
    assert main(command) == 1
    assert "exists; give another --out, or --force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert (
        main(["upscale", str(folder), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--steps", "2"])
        == 0
    )
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")) == [
        "a.png",
        "more/b.png",
    ]


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (
            lambda folder: Image.new("L", (9, 3)).save(folder / "z.png"),
            [],
            "z.png is (1, 3, 9) (C, H, W) and the model takes",
        ),
        (lambda folder: (folder / "z.png").write_bytes(b"none"), [], "cannot read"),
        (lambda folder: Image.new("L", (9, 9)).save(folder / "a.bmp"), [], "two pictures of"),
        (lambda folder: (folder / "a.png").unlink(), [], "holds no pictures"),
        (lambda folder: None, ["--noise", "0.99"], "noise=0.99 is beyond what its model was trained with"),
        (lambda folder: None, ["--noise", "-1"], "noise=-1"),
        (lambda folder: None, ["--sampler", "dimm"], "unknown sampler 'dimm'"),
    ],
)
def test_bad_input_writes_nothing(folder, tmp_path, change, arguments, words, capsys):
    (tmp_path / "in").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "in" / "a.png")
    change(tmp_path / "in")
    assert (
        main(["upscale", str(folder), str(tmp_path / "in"), "--out", str(tmp_path / "out"), *arguments]) != 0
    )
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").rglob("*.png"))


def test_one_picture_goes_into_a_file(folder, tmp_path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert main(["upscale", str(folder), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 2
    assert "is no FILE.png" in capsys.readouterr().err
    assert main(["upscale", str(folder), str(tmp_path / "none.png"), "--out", "x.png"]) == 2
    assert "there is no" in capsys.readouterr().err


def test_a_model_that_takes_no_picture_is_refused(one_line):
    with pytest.raises(UsageError, match="takes 0 images and an upscaler one") as caught:
        Upscaler(GaussianDenoiser(PROCESS, shape=(1, 8, 8)))
    one_line(caught.value)
    without = Upscaler(Blocks(PROCESS, "v", (1, 8, 8), level="other", **EXACT))
    assert without.level is None
    with pytest.raises(UsageError, match="told no level of noise") as caught:
        without(picture(4, 4), 0.2)
    one_line(caught.value)
