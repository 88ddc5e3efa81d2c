"""Two values that differ have different records, and a record that is a spec builds the same component again."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.guiding.sums import Sum
from trilemma.interfaces.sampler import Sampler
from trilemma.registry import building
from trilemma.registry.manager import catalog
from trilemma.registry.options import annotation_of, checked_options, option_parameters
from trilemma.registry.recording import recorded
from trilemma.registry.spec import Recorded, Spec, format_value, parse_spec
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP
from trilemma_plugins.guidances.apg import APG
from trilemma_plugins.guidances.interval import Interval
from trilemma_plugins.guidances.rescale import Rescale

KINDS = ("sampler", "guidance", "process")
NAMES = [(kind, entry.address) for kind in KINDS for entry in catalog().components(kind)]


def text_of(value: Any) -> str:
    return format_value(recorded(value, lambda made: type(made).__name__))


def values_of(annotation: Any, default: Any) -> st.SearchStrategy[Any]:
    """Values near the default, of every type that the annotation allows and a text can hold."""
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(0, 5)
    if annotation is float:
        near = default if isinstance(default, float) and math.isfinite(default) else 0.5
        return st.floats(0.5, 1.0).map(lambda factor: near * factor) | st.sampled_from([0.0, near, near / 3])
    if get_origin(annotation) in (Union, type(int | None)):
        some = [values_of(each, None) for each in get_args(annotation) if each in (int, float, type(None))]
        return st.one_of(some) if some else st.just(default)
    return st.just(default)


@st.composite
def options(draw: Any, kind: str, name: str) -> dict[str, Any]:
    target = building.import_target(catalog().find(kind, name))
    chosen = {}
    for option, parameter in option_parameters(target).items():
        annotation = annotation_of(target, option)
        if option == "grid":
            chosen[option] = draw(
                st.sampled_from(["trailing", "karras:rho=5.0", (0.9, 0.5, 0.1), "sigmas:values=[3.0, 0.5]"])
            )
        elif option == "label":
            chosen[option] = draw(st.sampled_from([3, [0, 1, 2]]))
        elif option in ("model", "guidance", "schedule", "shape", "variance"):
            continue
        elif draw(st.booleans()):
            chosen[option] = draw(values_of(annotation, parameter.default))
    return chosen


@pytest.mark.parametrize(("kind", "name"), NAMES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_spec_builds_what_is_recorded_as_that_spec(kind, name, data):
    try:
        made, spec = lookup.build(kind, name, **data.draw(options(kind, name)))
    except UsageError:  # numbers that do not go together
        return
    again, canonical = lookup.build(kind, spec)
    assert canonical == spec
    if dataclasses.is_dataclass(made):
        assert lookup.describe(kind, made) == spec
        assert again == made
        for field in dataclasses.fields(made):
            assert repr(getattr(again, field.name)) == repr(getattr(made, field.name))


@pytest.mark.parametrize(("kind", "name"), NAMES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_two_that_differ_in_an_option_differ_in_their_records(kind, name, data):
    try:
        (a, first), (b, second) = (
            lookup.build(kind, name, **data.draw(options(kind, name))) for _ in range(2)
        )
    except UsageError:
        return
    if dataclasses.is_dataclass(a):
        assert (first == second) == (a == b)


NUMPY = [
    np.float64(0.25),
    np.float32(0.25),
    np.float16(0.25),
    np.array(0.25),
    torch.tensor(0.25),
    Fraction(1, 4),
]


@pytest.mark.parametrize("eta", NUMPY, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("make", [DDIM, functools.partial(lookup.sampler, "ddim")])
def test_numbers_of_other_libraries_are_recorded_as_pythons(eta, make):
    made = make(eta=eta)
    assert type(made.eta) is float
    assert lookup.describe("sampler", made) == "ddim:eta=0.25,grid=trailing,clip=None"
    assert make(eta=3 * eta) != made


def test_numpy_integers_are_integers_and_bools_are_none():
    assert lookup.build("process", "vp", T=np.int64(20))[1].startswith("vp:schedule=linear,T=20,")
    assert type(DiscreteVP(T=np.int16(20)).T) is int
    for wrong in (True, np.True_, torch.tensor(True), 20.0, "20", np.float64(20)):
        with pytest.raises(UsageError, match="T="):
            DiscreteVP(T=wrong)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Tinted(Sampler):
    """A sampler with options of all sorts."""

    colour: Colour = Colour.RED
    kind: torch.dtype = torch.float32
    folder: Path = Path("x")
    inner: Sampler | None = None
    weights: Any = None

    order = 1
    deterministic = True


class Plain(Sampler):
    """A sampler that is no dataclass and keeps what it takes."""

    order = 1
    deterministic = True

    def __init__(self, eta: float = 0.0) -> None:
        self.eta = eta


class Hidden(Sampler):
    """A sampler that is no dataclass and keeps something else."""

    order = 1
    deterministic = True

    def __init__(self, eta: float = 0.0) -> None:
        self._squared = eta**2


def closure(k: float) -> Any:
    return lambda x: k * x


def net(seed: int, **settings: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 2), nn.Dropout(**settings))


@dataclass
class Holder:
    value: Any


class Opaque:
    __slots__ = ()


def of_slots(value: Any) -> Any:
    class Slotted:
        __slots__ = ("kept",)

    made = Slotted()
    made.kept = value
    return made


PAIRS = {
    "numpy scalar": (np.float64(0.25), np.float64(0.75)),
    "tensor": (torch.zeros(3, 4), torch.ones(3, 4)),
    "shape": (torch.zeros(3, 4), torch.zeros(4, 3)),
    "dtype of a tensor": (torch.zeros(4), torch.zeros(4, dtype=torch.float64)),
    "bfloat16": (torch.ones(4, dtype=torch.bfloat16), torch.full((4,), 2, dtype=torch.bfloat16)),
    "strided": (torch.arange(6).view(2, 3).t(), torch.arange(6).view(3, 2)),
    "sparse": (torch.eye(3).to_sparse(), (2 * torch.eye(3)).to_sparse()),
    "complex": (torch.tensor([1j, 2]), torch.tensor([1j, 2]).conj().clone()),
    "array": (np.zeros(3), np.ones(3)),
    "objects": (np.array([1, "a"], dtype=object), np.array([1, "b"], dtype=object)),
    "enumeration": (Colour.RED, Colour.BLUE),
    "dtype": (torch.float32, torch.float64),
    "device": (torch.device("cpu"), torch.device("meta")),
    "path": (Path("a"), Path("b")),
    "path and name": (Path("a"), "a"),
    "list": ([1, torch.zeros(1)], [1, torch.ones(1)]),
    "list and tuple": ([1], (1,)),
    "dict": ({"a": np.float64(1)}, {"a": np.float64(2)}),
    "dict of tensors": ({"a": torch.zeros(1)}, {"a": torch.ones(1)}),
    "set": ({1, 2}, {1, 3}),
    "range": (range(3), range(4)),
    "long text": ("x" * 9999, "x" * 9998 + "y"),
    "network": (net(0), net(1)),
    "setting of a network": (net(0, p=0.1), net(0, p=0.2)),
    "mode of a network": (net(0), net(0).eval()),
    "function": (lambda x: x + 1, lambda x: x + 2),
    "closure": (closure(1.0), closure(2.0)),
    "partial": (functools.partial(closure, 1), functools.partial(closure, 2)),
    "method": (DDIM(0.0).nfe, DDIM(0.5).nfe),
    "builtin": (math.sin, math.cos),
    "class": (DDIM, DiscreteVP),
    "component": (DDIM(0.0), DDIM(0.5)),
    "component within": (Tinted(inner=DDIM(0.0)), Tinted(inner=DDIM(0.5))),
    "holder": (Holder(np.zeros(2)), Holder(np.ones(2))),
    "class of one's own": (Plain(0.25), Plain(0.75)),
    "class that hides it": (Hidden(0.25), Hidden(0.75)),
    "slots": (of_slots(1), of_slots(2)),
    "fraction": (Fraction(1, 3), Fraction(2, 3)),
    "not a number": (math.nan, math.inf),
    "opaque": (Opaque(), Opaque()),
    "iterator": (iter([1]), iter([2])),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_values_that_differ_have_different_records(pair):
    first, second = map(text_of, pair)
    assert first != second
    assert text_of(pair[0]) == first
    assert max(len(first), len(second)) < 5000
    a, b = (lookup.describe("sampler", Tinted(weights=value)) for value in pair)
    assert a != b


def test_equal_values_have_equal_records():
    pairs = [
        (torch.arange(6).view(2, 3).t(), torch.arange(6).view(2, 3).t().contiguous()),
        (net(0), net(0)),
        (closure(2.0), closure(2.0)),
        (Hidden(0.25), Hidden(0.25)),
        (np.float32(0.5), 0.5),
        ({3, 1, 2}, {2, 3, 1}),
    ]
    for a, b in pairs:
        assert text_of(a) == text_of(b)


def test_a_digest_says_shape_and_dtype():
    assert text_of(torch.zeros(3, 4)).startswith("<tensor 3x4 float32 sha256:")
    assert text_of(np.zeros((2, 0), dtype=np.int16)).startswith("<array 2x0 int16 sha256:")
    assert text_of(net(0)).startswith("<network Sequential 6 parameters sha256:")
    assert isinstance(recorded(DDIM(), lambda made: "ddim"), Spec)
    assert isinstance(recorded(torch.zeros(2), lambda made: ""), Recorded)


def test_options_that_texts_can_say_are_read_back():
    made = Tinted(
        colour=Colour.BLUE, kind=torch.float64, folder=Path("a b"), inner=DDIM(0.5, grid=(0.5, 0.25))
    )
    spec = lookup.describe("sampler", made)
    given = building._with_components(Tinted, parse_spec(spec).options)
    assert Tinted(**checked_options("tinted", Tinted, given)) == dataclasses.replace(
        made, folder=Path("./a b")
    )


def test_a_record_that_is_a_digest_builds_nothing():
    spec = (
        lookup.describe("guidance", CFG(2.0)) + "+" + "autoguidance:model=<network X 3 parameters sha256:00>"
    )
    with pytest.raises(UsageError, match="give the value itself"):
        lookup.build("guidance", spec)


GUIDANCES = [
    Interval(0.2, 0.7, guidance=CFG(3.0)),
    Rescale(0.5, guidance=Interval(0.2, 0.7, guidance=APG(3.0, 0.1, 2.0))),
    Sum((CFG(3.0), Rescale(0.5, guidance=APG(2.0)))),
    Interval(0.2, 0.7, guidance=Sum((CFG(3.0), APG(2.0)))),
    Sum((CFG(3.0), Interval(0.2, 0.7))),
]


@pytest.mark.parametrize("guidance", GUIDANCES[:3], ids=str)
def test_composed_guidances_are_recorded_as_the_sum_that_builds_them(guidance):
    spec = lookup.describe("guidance", guidance)
    assert lookup.build("guidance", spec) == (guidance, spec)


def test_guidances_that_no_sum_writes_have_records_of_their_own():
    assert len({lookup.describe("guidance", guidance) for guidance in GUIDANCES}) == len(GUIDANCES)


def test_components_within_components_are_built():
    made, spec = lookup.build("guidance", "rescale:phi=0.5,guidance=apg(scale=3,eta=0.5)")
    assert made == Rescale(0.5, guidance=APG(3.0, 0.5))
    assert spec == "apg:scale=3.0,eta=0.5,norm_threshold=0.0+rescale:phi=0.5"
    with pytest.raises(UsageError, match="does not take"):
        lookup.build("sampler", "ddim:eta=ddim(eta=1)")
