"""Every option of every component that is sampled or measured with is refused, when it is built, for a bad value."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.registry import building
from trilemma.registry.manager import catalog
from trilemma.registry.options import annotation_of, option_parameters

KINDS = ("sampler", "guidance", "process", "metric", "dataset")

# Options that any whole or any finite number, a negative one too, makes sense for.
ANY_SIGN = {
    "guidance apg": {"scale", "eta"},
    "guidance autoguidance": {"scale"},
    "guidance cfg": {"scale"},
    "guidance classifier": {"scale"},
    "guidance perturbed-attention": {"scale"},
    "guidance schedule": {"first", "last"},
    "process vdm": {"gamma_min", "gamma_max"},
}
# Options that are names of conditions, which only a model knows.
NAMES = {"drop"}
# Options that are names or folders of data or models, which are looked for when they are needed.
PLACES = {"root", "folder", "model", "network"}
UNBOUNDED = {("sampler euler", "s_tmax"), ("sampler heun", "s_tmax"), ("sampler sa-solver", "rho_max")}
# Given too, so that what is refused is the option and not what is missing; their content is not looked at.
NEEDED = {
    "dataset images": {"root": "pictures"},
    "dataset degraded": {"of": "images:root=pictures"},
    "guidance autoguidance": {"model": "mnist"},
}

CASES = [
    pytest.param(kind, entry.address, name, id=f"{kind}-{entry.address}-{name}")
    for kind in KINDS
    for entry in catalog().components(kind)
    for name in option_parameters(building.import_target(entry))
]


def parts(annotation: Any) -> set[Any]:
    """The types that an annotation allows."""
    if get_origin(annotation) is Literal:
        return {type(entry) for entry in get_args(annotation)}
    arguments = get_args(annotation)
    return set().union(*map(parts, arguments)) if arguments else {annotation}


def bad_values(label: str, name: str, annotation: Any) -> list[Any]:
    allowed = parts(annotation)
    found: list[Any] = [
        math.nan,
        np.float32("nan"),
        torch.tensor(math.nan),
        object(),
        {"a": 1},
        {1},
        b"x",
        1j,
    ]
    found += [[math.nan], [object()], [[1]], lambda: 1, torch.zeros(2, 2), np.array(["a b"])]
    if name not in NAMES:
        found += [np.array(["a"])]
    if (label, name) not in UNBOUNDED:
        found += [math.inf]
    found += [-math.inf]
    if bool not in allowed:
        found += [True, np.True_]
    if type(None) not in allowed:
        found += [None]
    if not {str, Any} & allowed:
        found += ["many", "", "1"]
    if str in allowed and name not in PLACES:
        found += ["", "a" * 10**5, "\n", "\x00"]
    if str in allowed and name not in {*PLACES, *NAMES}:
        found += ["nonsense"]
    if not {int, float} & allowed:
        found += [1, 0.5]
    if {int, float} & allowed and name not in ANY_SIGN.get(label, ()):
        found += [-1, np.int64(-1)]
    if int in allowed and float not in allowed:
        found += [0.5, 1e3, 10**30, -(10**30), 2**40]
    if float in allowed:
        found += [10**400]
    return found


def refusal(kind: str, component: str, given: dict[str, Any]) -> str:
    try:
        lookup.build(kind, component, **given)
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("kind", "component", "option"), CASES)
def test_a_bad_value_is_refused_as_the_component_is_built(kind, component, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / "cat" / "1.png")
    label = f"{kind} {component}"
    target = building.import_target(catalog().find(kind, component))
    annotation = annotation_of(target, option)
    for value in bad_values(label, option, annotation):
        given = {**NEEDED.get(label, {}), option: value}
        message = refusal(kind, component, given)
        assert message, f"{label}: {option}={str(value)[:40]!r} was taken"
        assert len(message) < 300
        assert message.isprintable()
        assert ";" in message
        assert option in message
        if dataclasses.is_dataclass(target):
            with pytest.raises(UsageError):
                target(**given)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_the_options_are_many():
    assert len(CASES) > 100
