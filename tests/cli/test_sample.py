"""`trilemma sample` from the arguments to the files."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import trilemma
from trilemma.cli.app import main
from trilemma.models.card import build_denoiser, save_model
from trilemma.output import provenance
from trilemma.output.picture import tile, to_bytes


def run(capsys, *arguments):
    code = main(["sample", *map(str, arguments), "--no-progress"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_grid_and_its_provenance(capsys, tiny_model, tmp_path):
    out = tmp_path / "x.png"
    conditioned = ["--sampler", "ddim", "--guidance", "cfg:scale=2", "--cond", "class=1"]
    options = [*conditioned, "--steps", "5", "--seed", "3", "--columns", "4"]
    code, said, complaints = run(capsys, tiny_model, "-n", 4, *options, "--out", out)
    assert (code, complaints) == (0, "")
    assert said.count("\n") == 1
    assert f"{out}: 4 samples drawn in" in said
    assert "NFE 10 a sample" in said
    assert "images/s" in said
    record = provenance(out)
    assert (record["nfe"], record["seed"], record["cond"]) == (10, 3, {"class": 1})
    assert (record["guidance"], record["indices"]) == ("cfg:scale=2.0", "0-3")
    assert record["backend"] in said
    drawn = trilemma.sample(
        str(tiny_model), 4, sampler="ddim", steps=5, guidance="cfg:scale=2", cond={"class": 1}, seed=3
    )
    grid = tile(to_bytes(drawn.samples), columns=4)
    factor = 512 // max(grid.shape)
    with Image.open(out) as picture:
        np.testing.assert_array_equal(np.array(picture)[::factor, ::factor], grid[0].numpy())


def test_an_archive_holds_what_the_library_draws(capsys, tiny_model, tmp_path):
    out = tmp_path / "x.npz"
    options = ["--steps", 4, "--cond", "class=[0,1]", "--indices", "5,0-1", "--out", out, "--json"]
    code, said, _ = run(capsys, tiny_model, *options)
    assert code == 0
    record = json.loads(said)
    assert (record["drawn"], record["n"], record["indices"], record["out"]) == (3, 3, "5,0-1", str(out))
    drawn = trilemma.sample(str(tiny_model), steps=4, cond={"class": [0, 1]}, indices=[5, 0, 1])
    np.testing.assert_array_equal(np.load(out)["samples"], drawn.samples.numpy())


def test_a_folder_is_filled_up_with_the_same_samples(capsys, tiny_model, tmp_path):
    common = [tiny_model, "--steps", 4, "--sampler", "ddpm", "--deterministic"]
    run(capsys, *common, "-n", 5, "--out", tmp_path / "whole")
    run(capsys, *common, "-n", 3, "--out", tmp_path / "parts")
    (tmp_path / "parts" / "00000001.png").unlink()
    kept = (tmp_path / "parts" / "00000000.png").stat().st_ino
    code, said, _ = run(capsys, *common, "-n", 5, "--out", tmp_path / "parts")
    assert code == 0
    assert "3 samples drawn, 2 were there" in said
    assert (tmp_path / "parts" / "00000000.png").stat().st_ino == kept
    assert sorted(os.listdir(tmp_path / "whole")) == sorted(os.listdir(tmp_path / "parts"))
    for name in os.listdir(tmp_path / "whole"):
        if name.endswith(".png"):
            assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    record = provenance(tmp_path / "parts")
    assert (record["indices"], record["n"], record["deterministic"]) == ("0-4", 5, True)
    before = (tmp_path / "parts" / "provenance.json").read_bytes()
    code, said, _ = run(capsys, *common, "-n", 4, "--out", tmp_path / "parts")
    assert code == 0
    assert "all samples asked for are there" in said
    assert (tmp_path / "parts" / "provenance.json").read_bytes() == before


def test_a_folder_of_another_seed_is_refused(capsys, tiny_model, tmp_path):
    common = [tiny_model, "--steps", 2, "-n", 1, "--out", tmp_path / "out"]
    assert run(capsys, *common)[0] == 0
    code, said, error = run(capsys, *common, "--seed", 1)
    assert (code, said) == (1, "")
    assert "seed is 0 there, 1 now" in error
    assert error.count("\n") == 1


def test_the_network_may_run_in_bfloat16(capsys, tiny_model, tmp_path):
    out = tmp_path / "x.npz"
    assert run(capsys, tiny_model, "-n", 2, "--steps", 3, "--dtype", "bfloat16", "--out", out)[0] == 0
    assert torch.from_numpy(np.load(out)["samples"]).isfinite().all()
    record = provenance(out)
    assert (record["dtype"], record["network_dtype"]) == ("float32", "bfloat16")


def test_quiet_says_nothing_and_progress_goes_to_stderr(capsys, tiny_model, tmp_path):
    out = tmp_path / "x.npz"
    assert main(["sample", str(tiny_model), "-n", "2", "--steps", "3", "-o", str(out), "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["sample", str(tiny_model), "-n", "2", "--steps", "3", "-o", str(out), "--json"]) == 0
    said, progress = capsys.readouterr()
    assert json.loads(said)["n"] == 2
    assert "3/3" in progress


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "x.bmp"], 2, ".png or .jpg for a grid"),
        (["--out", "none/x.png"], 1, "there is no folder none"),
        (["--out", "/dev/full"], 1, "/dev/full is no folder"),
        (["--out", "x.npz", "--columns", "3"], 2, "no columns"),
        (["--cond", "class"], 2, "name=value"),
        (["--cond", "class=1", "--cond", "class=2"], 2, "given twice"),
        (["--cond", "style=1"], 2, "this model takes: class"),
        (["--dtype", "int8"], 2, "float32 or bfloat16"),
        (["--indices", "1,1"], 2, "twice"),
        (["-n", "0"], 2, "at least 1"),
        (["-n", "-3"], 2, "at least 1"),
        (["-n", "many"], 2, "valid integer"),
        (["--seed", "-1"], 2, "seed"),
    ],
)
def test_bad_arguments_write_nothing(capsys, tiny_model, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    found, said, error = run(capsys, tiny_model, *arguments)
    assert (found, said) == (code, "")
    assert error.count("\n") == 1
    assert message in error
    assert os.listdir(tmp_path) == []


def test_the_command_imports_nothing_heavy():
    program = "import sys, trilemma.cli.sample; print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"


def test_pictures_to_start_from_and_to_keep(capsys, tiny_model, tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(pixels).save(tmp_path / "x.png")
    Image.fromarray(np.where(np.arange(64).reshape(8, 8) % 8 < 4, 255, 0).astype(np.uint8)).save(
        tmp_path / "m.png"
    )
    x = torch.from_numpy(pixels).float()[None, None] / 127.5 - 1
    mask = (torch.arange(8) < 4).float().expand(1, 1, 8, 8)
    np.savez(tmp_path / "x.npz", samples=x.numpy())

    common = [tiny_model, "-n", 2, "--steps", 5, "--json"]
    out = tmp_path / "out.npz"
    options = ["--start", tmp_path / "x.png", "--strength", 0.5, "--trajectory", "--out", out]
    code, said, _ = run(capsys, *common, *options)
    assert code == 0
    assert json.loads(said)["nfe"] == 2
    drawn = trilemma.sample(str(tiny_model), 2, steps=5, start=x, strength=0.5, trajectory=True)
    archive = np.load(out)
    np.testing.assert_array_equal(archive["samples"], drawn.samples.numpy())
    np.testing.assert_array_equal(archive["trajectory"], drawn.trajectory.numpy())
    np.testing.assert_array_equal(archive["times"], drawn.times)

    options = ["--known", tmp_path / "x.npz", "--mask", tmp_path / "m.png", "--out", out]
    assert run(capsys, *common, *options)[0] == 0
    kept = torch.from_numpy(np.load(out)["samples"])
    assert torch.equal(kept * mask, (x * mask).expand(2, -1, -1, -1))
    assert json.loads(str(np.load(out)["provenance"]))["known"]["mask_sha256"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--start", "none.png"], "cannot read none.png"),
        (["--strength", "0.5"], "give start="),
        (["--mask", "small.png"], "known= is missing"),
        (["--known", "right.png"], "mask= is missing"),
        (["--start", "right.png", "--strength", "0"], "strength=0.0"),
        (["--trajectory"], "cannot hold a trajectory"),
        (["--trajectory", "--out", "x.jpg"], "cannot hold a trajectory"),
        (["--start", "empty.npz"], "no array named samples"),
    ],
)
def test_bad_pictures_are_refused(capsys, tiny_model, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save("small.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("right.png")
    np.savez("empty.npz", images=np.zeros((1, 1, 8, 8)))
    code, said, error = run(capsys, tiny_model, "-n", 1, "--steps", 2, *arguments)
    assert (code, said) == (2, "")
    assert error.count("\n") == 1
    assert message in error


def test_a_folder_of_another_start_is_refused(capsys, tiny_model, tmp_path):
    for name, level in (("a.png", 0), ("b.png", 255)):
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(tmp_path / name)
    common = [tiny_model, "--steps", 2, "-n", 1, "--out", tmp_path / "out", "--start"]
    assert run(capsys, *common, tmp_path / "a.png")[0] == 0
    code, _, error = run(capsys, *common, tmp_path / "b.png")
    assert code == 1
    assert "start is" in error


def test_one_sample_is_written_at_its_own_size_and_can_be_started_from(capsys, tiny_model, tmp_path):
    out = tmp_path / "one.png"
    assert run(capsys, tiny_model, "-n", 1, "--steps", 2, "--out", out)[0] == 0
    drawn = trilemma.sample(str(tiny_model), steps=2).samples
    with Image.open(out) as picture:
        np.testing.assert_array_equal(np.array(picture), to_bytes(drawn)[0, 0].numpy())
    code, _, complaints = run(
        capsys, tiny_model, "-n", 1, "--steps", 2, "--start", out, "--out", tmp_path / "two.png"
    )
    assert (code, complaints) == (0, "")


def photo(path, height, width, mode="RGB"):
    """A picture whose halves are black and white, left and right."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, width // 2 :] = 255
    Image.fromarray(pixels).convert(mode).save(path)


def test_photos_of_any_size_are_resized_and_a_line_says_so(capsys, tiny_model, tmp_path):
    """The middle square of a photo of 40×60 is its columns 10 to 49."""
    photo(tmp_path / "photo.jpg", 40, 60)
    photo(tmp_path / "mask.png", 40, 60, "L")
    out = tmp_path / "x.npz"
    options = ["--known", tmp_path / "photo.jpg", "--mask", tmp_path / "mask.png", "--out", out]
    code, _, said = run(capsys, tiny_model, "-n", 2, "--steps", 2, *options)
    assert code == 0
    assert said.splitlines() == [
        f"{tmp_path}/photo.jpg: 40×60 (H×W) resized to cover 8×8 (lanczos) and cropped at the centre",
        f"{tmp_path}/mask.png: 40×60 (H×W) resized to cover 8×8 (nearest) and cropped at the centre",
    ]
    kept = np.load(out)["samples"]
    assert kept[:, :, :, 5:].min() > 0.95
    assert kept[:, :, :, 4:].min() > 0.5
    assert (kept[:, :, :, :4] != kept[:, :, :, 4:]).all()
    start = ["--start", tmp_path / "photo.jpg", "--out", tmp_path / "y.png", "--quiet"]
    assert run(capsys, tiny_model, "-n", 1, "--steps", 2, *start) == (0, "", "")


def test_a_way_is_written_as_an_animation_without_being_asked_for(capsys, tiny_model, tmp_path):
    for name in ("way.gif", "way.webp"):
        out = tmp_path / name
        assert run(capsys, tiny_model, "-n", 4, "--steps", 5, "--out", out)[0] == 0
        with Image.open(out) as picture:
            assert picture.n_frames == 6
        assert provenance(out)["steps"] == 5


def test_a_jpeg_grid_is_the_grid_of_a_png(capsys, tiny_model, tmp_path):
    for name in ("x.png", "x.jpg"):
        assert run(capsys, tiny_model, "-n", 4, "--steps", 2, "--out", tmp_path / name)[0] == 0
    with Image.open(tmp_path / "x.png") as png, Image.open(tmp_path / "x.jpg") as jpeg:
        assert jpeg.format == "JPEG"
        difference = np.array(png).astype(int) - np.array(jpeg)
    assert np.abs(difference).mean() < 3
    assert provenance(tmp_path / "x.jpg")["indices"] == "0-3"


@pytest.fixture(scope="module")
def named_model(tmp_path_factory):
    """A model of three classes whose names are no words."""
    card = {
        "model": {"name": "named"},
        "process": {"spec": "vp:schedule=cosine,T=50"},
        "denoiser": {
            "spec": "unet",
            "parameterization": "v",
            "options": {"channels": [8], "blocks": 1, "classes": 3, "groups": 4},
        },
        "data": {"shape": [1, 8, 8], "classes": ["traffic light", "T-shirt/top", "1984"]},
    }
    network = build_denoiser(card, seed=0)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in network.state_dict().items()
    }
    path = tmp_path_factory.mktemp("models") / "named"
    save_model(path, card, state)
    return path


@pytest.mark.parametrize(
    ("asked", "recorded", "labels"),
    [
        ('class="traffic light"', "traffic light", 0),
        ("class=traffic light", "traffic light", 0),
        ("class=T-shirt/top", "T-shirt/top", 1),
        ('class="1984"', "1984", 2),
        ("class=2", 2, 2),
        ('class=[T-shirt/top,"traffic light"]', ["T-shirt/top", "traffic light"], [1, 0]),
    ],
)
def test_classes_go_by_their_names_and_the_record_has_what_was_asked(
    capsys, named_model, tmp_path, asked, recorded, labels
):
    out = tmp_path / "x.npz"
    assert run(capsys, named_model, "-n", 2, "--steps", 2, "--cond", asked, "--out", out)[0] == 0
    drawn = trilemma.sample(str(named_model), 2, steps=2, cond={"class": labels})
    np.testing.assert_array_equal(np.load(out)["samples"], drawn.samples.numpy())
    assert provenance(out)["cond"] == {"class": recorded}


def test_an_unknown_name_is_refused_in_a_line(capsys, named_model, tmp_path):
    for asked, message in (
        ("class=trafic light", "did you mean 'traffic light'?"),
        ("class=1984", '"1984" in quotes a name'),
    ):
        code, _, error = run(
            capsys, named_model, "-n", 1, "--steps", 1, "--cond", asked, "--out", tmp_path / "x"
        )
        assert code == 2
        assert error.count("\n") == 1
        assert message in error


def test_noise_keyed_by_time_is_asked_for_recorded_and_never_mixed(capsys, tiny_model, tmp_path):
    out = tmp_path / "x"
    options = ["--sampler", "ddpm", "--steps", "4", "--out", out]
    assert run(capsys, tiny_model, "-n", 2, *options, "--noise", "brownian")[0] == 0
    record = provenance(out)
    assert (record["noise"], record["seed"]) == ("BrownianNoise", 0)
    code, _, complaint = run(capsys, tiny_model, "-n", 4, *options)
    assert code != 0
    assert "noise" in complaint
    assert complaint.count("\n") == 1
    code, _, complaint = run(capsys, tiny_model, "-n", 1, *options, "--noise", "brown")
    assert code != 0
    assert "unknown noise 'brown'; choose from keyed, brownian" in complaint
