"""Whatever a run could not carry out is refused in one line before its first step, and nothing is written."""

from __future__ import annotations

import builtins
import copy
import dataclasses
import math
import os
import re
import shutil
import tomllib
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from trilemma.cli.app import main
from trilemma.errors import PluginUnavailable, TrilemmaError
from trilemma.train import trainer
from trilemma.train.recipe import Recipe, make_recipe
from trilemma.train.trainer import train
from trilemma_plugins.digits.dataset import Digits
from trilemma_plugins.unet.unet import UNet

DIGITS = """
steps = 2
batch_size = 8
tensorboard = false
dataset = { spec = "digits" }
process = { spec = "vp:T=50" }
objective = { spec = "simple" }

[denoiser]
options = { channels = [8], blocks = 1, groups = 4, classes = 10 }

[samples]
every = 1
n = 4
steps = 2
"""

NOT_TEXT = [5, 1.5, True, None, [], {}]
NOT_NUMBERS = ["many", True, None, [], {}, math.nan, -1.0, -math.inf]
NOT_COUNTS = ["many", True, None, 1.5, math.nan, math.inf, [], {}, -1, -(10**30)]
NOT_SPECS = [*NOT_TEXT, "", ":", "no-such-one", "a/b/c", "x" * 5000, "simple:no_such_option=1"]
NOT_SWITCHES = ["yes", 1, 0.0, None, []]
NOT_TABLES = ["table", 5, None, [1]]

BAD: dict[str, list[Any]] = {
    "dataset.spec": [*NOT_SPECS, "digits:split=validation", "digits:splt=test"],
    "process.spec": [*NOT_SPECS, "vp:T=0", "vp:T=many", "vp:schedule=nought"],
    "denoiser.spec": [*NOT_SPECS],
    "denoiser.parameterization": [*NOT_TEXT, "", "vv", "score "],
    "denoiser.options": [
        *NOT_TABLES,
        {"chanels": [8]},
        {"channels": []},
        {"channels": ["8"]},
        {"channels": [8], "groups": 0},
        {"channels": [8], "groups": 3},
        {"channels": [8], "groups": 4, "blocks": -1},
        {"channels": [8], "groups": 4, "patch": 0},
        {"channels": [8], "groups": 4, "patch": 3},
        {"channels": [8], "groups": 4, "dropout": math.nan},
        {"channels": [8], "groups": 4, "dropout": 1.5},
        {"channels": [8], "groups": 4, "dropout": -0.1},
        {"channels": [8], "groups": 4, "embedding": 0},
        {"channels": [8], "groups": 4, "classes": -3},
        {"channels": [8], "groups": 4, "classes": 2},
        {"channels": [8], "groups": 4, "classes": 11},
        {"channels": [8], "groups": 4, "time": "never"},
        {"channels": [8], "groups": 4, "attention": [5]},
        {"channels": [8], "groups": 4, "attention": [8], "head": 3},
    ],
    "objective.spec": [*NOT_SPECS, "simple:drop=2", "simple:drop=nan", "simple:weighting=none", "vlb"],
    "steps": [*NOT_COUNTS, 0, 10**30],
    "name": [*NOT_TEXT, "", ".", "..", "a/b", "../x", "x" * 300, "nul\0", "\ud800"],
    "summary": [*NOT_TEXT, "\ud800"],
    "licence": [*NOT_TEXT, "a\nb", "x" * 300, "\ud800"],
    "batch_size": [*NOT_COUNTS, 0, 10**6, 10**30],
    "seed": [*NOT_COUNTS, 2**64],
    "precision": [*NOT_TEXT, "", "int8", "fp16"],
    "compile": NOT_SWITCHES,
    "ema": [*NOT_NUMBERS, 1, 1.0, 2, 10**400],
    "ema_warmup": [*NOT_COUNTS, 0],
    "checkpoint_every": [*NOT_COUNTS, 0],
    "keep": [*NOT_COUNTS, 0],
    "log_every": [*NOT_COUNTS, 0],
    "tensorboard": NOT_SWITCHES,
    "weights_dtype": [*NOT_TEXT, "", "bfloat16", "int8"],
    "optimizer.lr": [*NOT_NUMBERS, 0, 1e30, math.inf, 10**400],
    "optimizer.final_lr": [*NOT_NUMBERS, 1.0, math.inf],
    "optimizer.warmup": NOT_COUNTS,
    "optimizer.weight_decay": [*NOT_NUMBERS, 1e9, math.inf],
    "optimizer.betas": [
        "ab",
        None,
        0.9,
        {},
        [],
        [0.9],
        [0.9, 1.0],
        [-0.1, 0.9],
        [math.nan, 0.9],
        [True, 0.9],
        ["a", 0],
    ],
    "optimizer.clip": [*NOT_NUMBERS, 0],
    "optimizer.kind": [*NOT_TEXT, "", "sgd"],
    "optimizer.updates": [*NOT_TABLES, {"lr": 1e-4}],
    "samples.every": NOT_COUNTS,
    "samples.n": [*NOT_COUNTS, 0, 10**30],
    "samples.sampler": [5, True, "", "ddin", "ddim:eta=-1", "ddim:etta=0", "gddim"],
    "samples.steps": [*NOT_COUNTS, 0, 51, 10**30],
    "samples.guidance": [5, True, "", "cgf", "cfg:scale=many", "cfg:scle=2", "interval:lo=2"],
    "samples.cond": [
        *NOT_TABLES,
        {"class": 10},
        {"class": -1},
        {"class": "three"},
        {"clas": 3},
        {"class": []},
    ],
    "latent.autoencoder": [*NOT_TEXT, "", "mnst", "./nowhere", "mnist", "x" * 5000],
    "latent.spec": [*NOT_TEXT, "", "small-codr", "unet", "small-coder", "small-coder:chanels=2"],
    "latent.options": [5, "a", [], {}, {"channels": 2}],
    "start": [5, True, "", "mnst", "./nowhere", "mnist", "x" * 5000, []],
    "validation.dataset": [5, True, "", "digts", "digits:splt=test", "points", []],
    "validation.fraction": [*NOT_NUMBERS, 0.6, 1, math.inf],
    "validation.every": [*NOT_COUNTS, 0],
    "validation.n": [*NOT_COUNTS, 0],
    "sampling.guidance": [5, True, "", "cgf", "cfg:scle=2", "interval:lo=2"],
    "sampling.sampler": [5, True, "", "ddin", "ddim:etta=0", "ddim:eta=-1", "gddim"],
    "sampling.steps": ["many", True, 1.5, math.nan, [], {}, 0, -1, 51, 10**30],
    "evaluation": [
        *NOT_TABLES,
        {"dataset": "mnst"},
        {"dataset": "mnist:splt=test"},
        {"dataset": 5},
        {"features": "mnist-feature"},
        {"metrics": "frechet"},
        {"metrics": []},
        {"metrics": [5]},
        {"metrics": ["frechett"]},
        {"metrics": ["frechet:x=1"]},
        {"metric": ["frechet"]},
    ],
}
OTHER_KINDS = ("autoencoder", "classifier", "features")
BAD |= {f"{kind}.spec": NOT_SPECS for kind in OTHER_KINDS}
BAD |= {f"{kind}.options": NOT_TABLES for kind in OTHER_KINDS}
TABLES = ("dataset", "process", "denoiser", "objective", "optimizer", "samples", "validation", "sampling")


def fields_of(cls: type, prefix: str = "") -> list[str]:
    """The dotted names of all fields of a recipe."""
    hints = typing.get_type_hints(cls)
    found: list[str] = []
    for field in dataclasses.fields(cls):
        inner = hints[field.name]
        key = prefix + field.name
        tables = [entry for entry in (inner, *typing.get_args(inner)) if dataclasses.is_dataclass(entry)]
        found += fields_of(tables[0], key + ".") if tables else [key]
    return found


def with_value(key: str, value: Any) -> dict[str, Any]:
    table = copy.deepcopy(tomllib.loads(DIGITS))
    *parents, last = key.split(".")
    if {*parents} & {*OTHER_KINDS}:
        del table["denoiser"], table["samples"]
    place = table
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return table


@pytest.fixture(autouse=True)
def no_step(monkeypatch):
    """Fails where a step is taken."""

    def step(*_: object) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr(trainer._Run, "_step", step)


def refused(table: dict[str, Any], folder: Path, kind: type[TrilemmaError] = TrilemmaError) -> str:
    with pytest.raises(kind) as caught:
        train(make_recipe(table), folder)
    message = str(caught.value)
    assert "\n" not in message
    assert not os.path.lexists(folder)
    return message


def test_the_recipe_beside_them_is_sound(tmp_path):
    with pytest.raises(AssertionError, match="a step was taken"):
        train(make_recipe(tomllib.loads(DIGITS)), tmp_path / "run")


def test_one_model_is_trained(tmp_path):
    message = refused(with_value("classifier", {"spec": "any"}) | {"denoiser": {}}, tmp_path / "run")
    assert message == "recipe: it names denoiser and classifier; one model is trained, name one"
    table = tomllib.loads(DIGITS)
    del table["denoiser"], table["samples"]
    assert "key 'denoiser' is missing" in refused(table, tmp_path / "run")
    assert "key 'process' is missing" in refused(
        {key: value for key, value in tomllib.loads(DIGITS).items() if key != "process"}, tmp_path / "run"
    )


def test_every_field_is_tried():
    assert sorted(BAD) == sorted(fields_of(Recipe))


@pytest.mark.parametrize("key", sorted(BAD))
def test_a_bad_value(key, tmp_path):
    for value in BAD[key]:
        message = refused(with_value(key, value), tmp_path / "run")
        assert len(message) < 300, (key, value, message)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_none(table, tmp_path):
    for value in NOT_TABLES:
        refused(with_value(table, value), tmp_path / "run")
    refused(with_value(f"{table}.no_such_key", 1), tmp_path / "run")


def digits_with(monkeypatch, change):
    """Lets the digits be what `change` makes of them."""
    begin = Digits.__init__

    def changed(self, *given, **named):
        begin(self, *given, **named)
        change(self)

    monkeypatch.setattr(Digits, "__init__", changed)


def set_label(value):
    def change(data):
        data.labels = data.labels.clone()
        data.labels[7] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_label(10), "labels reach from 0 to 10"),
        (set_label(-1), "labels reach from -1 to 9"),
        (lambda data: setattr(data, "classes", ()), "the denoiser has 10 classes and the data set 0"),
        (lambda data: setattr(data, "classes", tuple("0123456789a")), "10 classes and the data set 11"),
        (lambda data: setattr(data, "labels", data.labels.float()), "no vector of integers"),
        (lambda data: setattr(data, "shape", (1, 8, 9)), r"its images are \(1, 8, 8\)"),
        (lambda data: setattr(data, "shape", (3, 8, 8)), r"its images are \(1, 8, 8\)"),
        (lambda data: setattr(data, "classes", (*"012345678", "\udcff")), "no UTF-8"),
        (lambda data: setattr(data, "_images", data._images[:3]), "the first batch cannot be used"),
    ],
)
def test_data_that_do_not_fit(change, message, tmp_path, monkeypatch):
    digits_with(monkeypatch, change)
    found = refused(tomllib.loads(DIGITS), tmp_path / "run")
    assert re.search(message, found), found
    assert len(found) < 300


def test_folders_that_are_one_class_more_than_the_network(tmp_path):
    for name in "abc":
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / "data" / name / f"{index}.png")
    table = with_value("dataset.spec", f"images:root='{tmp_path / 'data'}'")
    table["denoiser"]["options"]["classes"] = 2
    assert "set denoiser.options.classes=3" in refused(table, tmp_path / "run")


def test_a_class_folder_that_is_no_utf8(tmp_path):
    name = os.fsencode(tmp_path / "data") + b"/caf\xe9"
    os.makedirs(name)
    for index in range(8):
        Image.new("RGB", (8, 8)).save(os.fsdecode(name + b"/%d.png" % index))
    table = with_value("dataset.spec", f"images:root='{tmp_path / 'data'}'")
    del table["denoiser"]["options"]["classes"]
    assert "not text in UTF-8" in refused(table, tmp_path / "run")


@pytest.mark.parametrize("module", ["accelerate", "tensorboard"])
def test_a_package_that_is_not_there(module, tmp_path, monkeypatch, capsys):
    table = with_value("tensorboard", module == "tensorboard")
    usual, usual_find = builtins.__import__, trainer.prepare.__globals__["importlib"].util.find_spec

    def without(name, *given, **named):
        if name.partition(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return usual(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("importlib.util.find_spec", lambda n, *a: None if n == module else usual_find(n, *a))
    message = refused(table, tmp_path / "run", PluginUnavailable)
    assert 'pip install "trilemma[train]"' in message
    assert PluginUnavailable.exit_code == 3


def test_a_place_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for out in ("file", "file/run", "file/deep/run"):
        with pytest.raises(TrilemmaError, match=r"cannot write to .*; choose another --out"):
            train(make_recipe(tomllib.loads(DIGITS)), tmp_path / out)


def test_a_disk_that_holds_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    assert "free space or choose another --out" in refused(tomllib.loads(DIGITS), tmp_path / "run")


def test_a_network_without_parameters(tmp_path, monkeypatch):
    monkeypatch.setattr(UNet, "parameters", lambda *_, **__: iter(()))
    assert "no parameters to train" in refused(tomllib.loads(DIGITS), tmp_path / "run")


def test_a_network_that_answers_nothing_finite(tmp_path, monkeypatch):
    monkeypatch.setattr(UNet, "forward", lambda self, z, t, **_: z * torch.nan)
    assert "the loss of the untrained network is nan" in refused(tomllib.loads(DIGITS), tmp_path / "run")


def test_a_compiler_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "needs a C++ compiler" in refused(with_value("compile", True), tmp_path / "run")


@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_a_byte_order_mark_is_read_over(mark, tmp_path):
    from trilemma.train.recipe import read_recipe

    path = tmp_path / "recipe.toml"
    path.write_bytes((mark + DIGITS).encode())
    assert read_recipe(path).steps == 2


@pytest.mark.parametrize(
    "content",
    [
        b"a = " + b"[" * 50_000,
        b"steps = " + b"9" * 10_000,
        b"\x00",
        b"\xff\xfe",
        b"a" * (1 << 21),
        b"[a]\n[a]",
    ],
)
def test_a_file_that_is_no_recipe(content, tmp_path, capsys):
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 300
    assert "TRILEMMA_TRACEBACK" not in line


def test_weights_that_are_tied_are_saved_and_resumed(tmp_path, monkeypatch):
    """They train, in place of a refusal: a checkpoint writes them once for each name."""
    monkeypatch.undo()
    begin = UNet.__init__

    def tied(self, *given, **named):
        begin(self, *given, **named)
        blocks = [
            module for module in self.modules() if isinstance(module, nn.Linear) and module.out_features == 16
        ]
        blocks[1].weight = blocks[0].weight

    monkeypatch.setattr(UNet, "__init__", tied)
    table = with_value("checkpoint_every", 1) | {"tensorboard": False}
    recipe = make_recipe(table)
    train(recipe, tmp_path / "unbroken")
    train(recipe, tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "step-000000002")
    train(recipe, tmp_path / "resumed")
    first, second = (
        (tmp_path / n / "model" / "weights.safetensors").read_bytes() for n in ("unbroken", "resumed")
    )
    assert first == second
