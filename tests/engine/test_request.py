"""Every option of the engine is written once, and everything that takes it takes it from there."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import trilemma
from trilemma.cli import eval as eval_command
from trilemma.cli import sample as sample_command
from trilemma.engine.request import Drawing, InversionRequest, Request
from trilemma.engine.signature import meanings
from trilemma.errors import UsageError
from trilemma.ops import OPERATORS, Operator
from trilemma.testing import GaussianDenoiser

TAKEN = [
    (trilemma.sample, Request),
    (trilemma.sample_chunks, Request),
    (trilemma.stepper, Drawing),
    (trilemma.invert, InversionRequest),
]
TREE = Path(trilemma.__file__).parent


@pytest.mark.parametrize(("function", "options"), TAKEN)
def test_a_function_has_the_signature_and_the_meanings_of_its_options(function: Any, options: type) -> None:
    asked = inspect.signature(function).parameters
    assert set(asked) == {field.name for field in fields(options)}
    for field in fields(options):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        assert asked[field.name].default == default
    written = " ".join((function.__doc__ or "").split())
    for name, meaning in meanings(options).items():
        assert f"{name}: {meaning}" in written


def test_each_option_s_meaning_stands_once_in_the_tree() -> None:
    files = (
        path for path in TREE.rglob("*.py") if path.parent != TREE / "train"
    )  # training has a bar of its own
    texts = {path: " ".join(path.read_text(encoding="utf-8").split()) for path in files}
    for options in (Request, InversionRequest):
        for name, meaning in meanings(options).items():
            found = [str(path) for path, text in texts.items() if meaning in text]
            assert len(found) == 1, (name, found)
            assert texts[Path(found[0])].count(meaning) == 1


def test_each_option_is_declared_once() -> None:
    declared = [name for cls in Request.__mro__ if cls is not object for name in vars(cls)["__annotations__"]]
    names = [name for name in declared if name != "_"]
    assert sorted(names) == sorted(field.name for field in fields(Request))


@pytest.mark.parametrize("command", [sample_command.command, eval_command.command])
def test_the_command_line_has_the_defaults_and_the_words_of_the_request(command: Any) -> None:
    own_defaults = {"n", "batch_size", "progress", "dtype"}
    said = meanings(Request)
    checked = 0
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        option = next(entry for entry in parameter.annotation.__metadata__)
        if name not in said or not isinstance(option, typer.models.OptionInfo):
            continue
        help_text = str(option.help)
        if not said[name].startswith(help_text[0].lower() + help_text[1:]) and not said[name].startswith(
            help_text
        ):
            assert name in {"cond", "indices", "start", "known", "mask", "trajectory", "dtype", "seed"}, name
            continue
        checked += 1
        if name not in own_defaults:
            assert parameter.default == Request.__dataclass_fields__[name].default
    assert checked >= 6


def test_there_are_five_frames_from_sample_to_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[list[str]] = []

    def launch(*arguments: Any) -> None:
        frame, names = sys._getframe(1), []
        while frame.f_code is not trilemma.sample.__code__:
            names.append(frame.f_code.co_qualname)
            assert frame.f_back is not None
            frame = frame.f_back
        found.append([*reversed([*names, "sample"])])
        OPERATORS["linear_step"](*arguments)

    monkeypatch.setattr(Operator, "launcher", lambda _: launch)
    process = trilemma.process("vp:schedule=cosine")
    trilemma.sample(GaussianDenoiser(process, 0.0, 1.0, "v", (1, 2, 2)), 2, sampler="ddim", steps=3)
    assert len(found) == 3
    assert all(len(names) <= 5 for names in found), found[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": -1}, "seed=-1 is not a seed"),
        ({"batch_size": 0}, "batch_size=0 is not a number of samples"),
        ({"dtype": "int32"}, "dtype='int32' is no floating-point dtype"),
        ({"capture": "graph"}, "unknown capture 'graph'"),
        ({"strength": 0.5}, "strength=0.5 says how far start= is noised"),
        ({"resample": 2}, "resample=2 repeats steps of inpainting"),
        ({"resample": True}, "resample=True is no count"),
        ({"known": torch.zeros(1, 1, 2, 2)}, "mask= is missing"),
        ({"start": torch.zeros(1, 1, 2, 2), "strength": 2}, "strength=2 is no time to noise to"),
        ({"start": torch.zeros(1, 1, 2, 2), "latent": torch.zeros(1, 1, 2, 2)}, "both say where to begin"),
    ],
)
def test_a_request_that_cannot_be_is_refused_as_it_is_made(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        Request("mnist", **options)
