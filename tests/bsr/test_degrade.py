"""`trilemma degrade`: pictures in, smaller ones out, decided by name and seed."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from trilemma.cli.app import main


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    levels = torch.randint(0, 256, (22, 17, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(levels.numpy()).save(folder / "a.png")
    Image.fromarray(levels.numpy()).save(folder / "more" / "b.png")
    Image.fromarray(levels[..., 0].numpy()).save(folder / "grey.png")
    return folder


def written(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def test_every_picture_of_a_folder_becomes_a_smaller_one(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["degrade", str(photos), "--out", str(out)]) == 0
    assert "3 pictures by bsr, 4 times smaller" in capsys.readouterr().out
    found = written(out)
    assert set(found) == {"a.png", "more/b.png", "grey.png"}
    for name, mode in (("a.png", "RGB"), ("more/b.png", "RGB"), ("grey.png", "L")):
        with Image.open(out / name) as image:
            assert image.size == (4, 5)
            assert image.mode == mode
    assert found["a.png"] != found["more/b.png"]

    # A picture's name and the seed decide, not its neighbours.
    (photos / "a.png").rename(tmp_path / "elsewhere.png")
    assert main(["degrade", str(photos), "--out", str(tmp_path / "fewer")]) == 0
    assert written(tmp_path / "fewer") == {
        name: content for name, content in found.items() if name != "a.png"
    }
    assert main(["degrade", str(photos), "--out", str(tmp_path / "other"), "--seed", "1"]) == 0
    assert written(tmp_path / "other")["grey.png"] != found["grey.png"]


def test_one_picture_in_several_versions(photos, tmp_path):
    assert (
        main(
            [
                "degrade",
                str(photos / "a.png"),
                "--out",
                str(tmp_path / "out"),
                "--copies",
                "3",
                "--factor",
                "2",
            ]
        )
        == 0
    )
    found = written(tmp_path / "out")
    assert set(found) == {"a.1.png", "a.2.png", "a.3.png"}
    assert len(set(found.values())) == 3


def test_pictures_that_are_there_stay(photos, tmp_path, capsys):
    command = ["degrade", str(photos), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    before = written(tmp_path / "out")
    assert main([*command, "--kind", "bsr-light"]) == 1
    assert "a.png exists; give another --out, or --force" in capsys.readouterr().err
    assert written(tmp_path / "out") == before
    assert main([*command, "--kind", "bsr-light", "--force"]) == 0
    assert written(tmp_path / "out") != before


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (lambda folder: None, ["--kind", "bsrr"], "unknown degradation 'bsrr'"),
        (lambda folder: None, ["--factor", "99"], "factor=99"),
        (lambda folder: (folder / "z.png").write_bytes(b"no picture"), [], "cannot read"),
        (
            lambda folder: Image.new("L", (3, 9)).save(folder / "z.png"),
            [],
            "z.png has 9×3 pixels; give a factor",
        ),
        (lambda folder: Image.new("L", (9, 9)).save(folder / "a.jpg"), [], "two pictures of"),
        (lambda folder: [path.unlink() for path in folder.rglob("*.png")], [], "holds no pictures"),
    ],
)
def test_bad_input_writes_nothing(photos, tmp_path, capsys, change, arguments, words):
    change(photos)
    assert main(["degrade", str(photos), "--out", str(tmp_path / "out"), *arguments]) != 0
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_there(tmp_path, capsys):
    assert main(["degrade", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "there is no" in capsys.readouterr().err


def test_a_run_that_was_stopped_makes_what_is_missing(photos, tmp_path, capsys):
    command = ["degrade", str(photos), "--out", str(tmp_path / "out"), "--copies", "2"]
    assert main(command) == 0
    before = written(tmp_path / "out")
    (tmp_path / "out" / "more" / "b.2.png").unlink()
    assert main([*command, "--resume"]) == 0
    assert "1 pictures by bsr" in capsys.readouterr().out
    assert written(tmp_path / "out") == before
    assert main([*command, "--resume", "--force"]) == 2
    assert "give one" in capsys.readouterr().err


def test_pictures_are_never_replaced_by_their_own(photos, tmp_path, capsys):
    before = written(photos)
    assert main(["degrade", str(photos), "--out", str(photos), "--force"]) == 2
    assert "is one of the pictures that are read" in capsys.readouterr().err
    assert written(photos) == before
    # An --out inside the folder is not degraded again.
    inside = ["degrade", str(photos), "--out", str(photos / "small")]
    assert main(inside) == 0
    assert main([*inside, "--force"]) == 0
    assert len(written(photos / "small")) == 3


def test_one_picture_into_one_file(photos, tmp_path, capsys):
    command = ["degrade", str(photos / "a.png"), "--out"]
    assert main([*command, str(tmp_path / "small.png")]) == 0
    assert main([*command, str(tmp_path / "out")]) == 0
    assert (tmp_path / "small.png").read_bytes() == (tmp_path / "out" / "a.png").read_bytes()
    capsys.readouterr()
    for more, out, words in (
        (["--copies", "2"], "two.png", "is the name of one file, and several are made"),
        ([], "small.jpg", "is neither FILE.png nor a folder"),
    ):
        assert main([*command, str(tmp_path / out), *more]) == 2
        assert words in capsys.readouterr().err
    assert main(["degrade", str(photos), "--out", str(tmp_path / "all.png")]) == 2
    assert "is the name of one file" in capsys.readouterr().err
