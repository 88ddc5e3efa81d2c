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


@pytest.mark.parametrize(("height", "width"), [(4, 4), (4, 7), (11, 18), (1, 1), (3, 9), (9, 2)])
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
        (lambda folder: (folder / "z.png").write_bytes(b"none"), [], "cannot read"),
        (lambda folder: Image.new("L", (9, 9)).save(folder / "a.bmp"), [], "two pictures of"),
        (lambda folder: (folder / "a.png").unlink(), [], "holds no pictures"),
        (lambda folder: None, ["--noise", "0.99"], "noise=0.99 is beyond what its model was trained with"),
        (lambda folder: None, ["--noise", "-1"], "noise=-1"),
        (lambda folder: None, ["--sampler", "dimm"], "unknown sampler 'dimm'"),
        (lambda folder: None, ["--cond", "low_level=5"], "low_level is made of the picture and noise"),
        (lambda folder: None, ["--cond", "lo=5"], "unknown condition 'lo'"),
        (lambda folder: None, ["--force", "--resume"], "--force replaces the pictures that are there"),
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
    command = ["upscale", str(folder), str(tmp_path / "a.png"), "--steps", "2", "--out"]
    assert main([*command, str(tmp_path / "big.jpg")]) == 2
    assert "is neither FILE.png nor a folder" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "a.png"), "--force"]) == 2
    assert "is one of the pictures that are read" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "a.png").is_file()
    (tmp_path / "file").touch()
    assert main([*command, str(tmp_path / "file" / "out.png")]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert main(["upscale", str(folder), str(tmp_path / "none.png"), "--out", "x.png"]) == 2
    assert "there is no" in capsys.readouterr().err


def test_a_cascade_is_refused(folder, tmp_path, register, capsys):
    register("denoiser", "test-gaussian", GaussianDenoiser)
    card = {
        "model": {"name": "small"},
        "process": {"spec": "vp-continuous"},
        "denoiser": {"spec": "test-gaussian", "parameterization": "v", "options": {}},
        "data": {"shape": [1, 4, 4]},
    }
    save_model(tmp_path / "small", card, {})
    stages = [{"model": f"../{name}"} for name in ("small", "twice")]
    save_model(tmp_path / "both", {"model": {"name": "both", "kind": "cascade"}, "stage": stages}, {})
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert (
        main(["upscale", str(tmp_path / "both"), str(tmp_path / "a.png"), "--out", str(tmp_path / "b.png")])
        == 2
    )
    assert "is a cascade, which draws its own small pictures" in capsys.readouterr().err


def test_a_model_that_takes_no_picture_is_refused(one_line):
    with pytest.raises(UsageError, match="takes 0 images and an upscaler one") as caught:
        Upscaler(GaussianDenoiser(PROCESS, shape=(1, 8, 8)))
    one_line(caught.value)
    without = Upscaler(Blocks(PROCESS, "v", (1, 8, 8), level="other", **EXACT))
    assert without.level is None
    with pytest.raises(UsageError, match="told no level of noise") as caught:
        without(picture(4, 4), 0.2)
    one_line(caught.value)


def test_a_small_picture_is_continued_by_its_mirror_image():
    """The model takes the whole tile; what is outside of the picture does not show a border."""
    seen = []

    class Watching(Blocks):
        def forward(self, z, t, **cond):
            seen.append(cond["low"].clone())
            return super().forward(z, t, **cond)

    small = picture(2, 1)
    large, _ = Upscaler(Watching(PROCESS, "v", (1, 8, 8), **EXACT))(small, steps=2)
    assert large.shape == (1, 4, 2)
    column = torch.cat([small[0, :, 0], small[0, :, 0].flip(0)])
    torch.testing.assert_close(seen[0][0, 0], column[:, None].expand(4, 4))


def test_tiles_in_any_batch_are_the_same_picture():
    upscale = Upscaler(Blocks(PROCESS, "v", (1, 8, 8), between=0.25, within=0.1))
    small = picture(9, 10)
    whole, record = upscale(small, 0.3, steps=3, seed=4)
    parts, _ = upscale(small, 0.3, steps=3, seed=4, batch_size=2)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    assert record["nfe"] == 3


def test_a_picture_that_does_not_fit_into_memory_is_refused(monkeypatch, one_line):
    upscale = Upscaler(Blocks(PROCESS, "v", (1, 8, 8), **EXACT))
    monkeypatch.setattr("trilemma.machine.memory.physical_memory", lambda device: 1000)
    with pytest.raises(UsageError, match="cut it into parts") as caught:
        upscale.check(picture(30, 30), "a.png")
    one_line(caught.value)


def test_a_run_that_was_stopped_makes_what_is_missing(folder, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in "abc":
        Image.new("L", (8, 8), ord(name)).save(tmp_path / "in" / f"{name}.png")
    out = tmp_path / "in" / "big"
    command = ["upscale", str(folder), str(tmp_path / "in"), "--out", str(out), "--steps", "2"]
    assert main(command) == 0
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert sorted(before) == ["a.png", "b.png", "c.png"]
    (out / "b.png").unlink()
    capsys.readouterr()
    # The pictures in --out are not enlarged again, though it lies inside the folder.
    assert main([*command, "--resume"]) == 0
    assert capsys.readouterr().out.count("big/") == 1
    after = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert sorted(after) == sorted(before)
    assert (after["a.png"], after["c.png"]) == (before["a.png"], before["c.png"])
    assert main([*command, "--resume"]) == 0
    assert "all pictures are there" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "I;16", "1", "CMYK"])
def test_pictures_of_every_kind_are_read(folder, tmp_path, mode, capsys):
    levels = (
        (torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) * 255).round().to(torch.uint8).numpy()
    )
    made = (
        Image.fromarray(levels.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(levels).convert(mode)
    )
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    made.save(path)
    assert main(["upscale", str(folder), str(path), "--out", str(tmp_path / "b.png"), "--steps", "30"]) == 0
    with Image.open(tmp_path / "b.png") as large:
        assert (large.mode, large.size) == ("L", (16, 16))
        if mode != "1":
            assert np.abs(np.asarray(large).astype(int) - np.kron(levels, np.ones((2, 2), int))).max() <= 2
