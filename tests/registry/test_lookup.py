"""Look-ups build what specs describe and refuse the rest in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pytest

import trilemma
from trilemma import lookup
from trilemma.errors import PluginUnavailable, UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.sampler import Sampler
from trilemma.registry.options import checked_options, fits, resolved_options
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.ddpm.process import DiscreteVP


def test_build_returns_the_object_and_its_canonical_spec():
    made, spec = lookup.build("sampler", "ddim:eta=1,grid=leading")
    assert made == DDIM(eta=1.0, grid="leading")
    assert spec == "ddim:eta=1.0,grid=leading,clip=None"


@pytest.mark.parametrize("spec", ["ddim", "ddim()", "ddim:eta=0", "ddim:clip=None,eta=0.0", "trilemma/ddim"])
def test_one_component_has_one_canonical_spec(spec):
    assert lookup.build("sampler", spec)[1] == "ddim:eta=0.0,grid=trailing,clip=None"


def test_the_canonical_spec_builds_an_equal_object():
    made, spec = lookup.build("process", "vp(schedule=cosine, T=50)")
    assert lookup.build("process", spec) == (made, spec)


def test_an_object_is_returned_as_it_is_with_its_canonical_spec():
    made = DDIM(eta=0.5)
    assert lookup.build("sampler", made) == (made, "ddim:eta=0.5,grid=trailing,clip=None")
    assert lookup.build("sampler", made)[0] is made


def test_an_object_of_an_unregistered_class_is_described_by_its_class():
    @dataclass(frozen=True)
    class Wrapper:
        inner: DDIM
        refine: int = 2

    assert (
        lookup.build("sampler", Wrapper(DDIM()))[1]
        == "Wrapper:inner=ddim(eta=0.0,grid=trailing,clip=None),refine=2"
    )
    assert lookup.build("sampler", object())[1] == "object"


def test_further_arguments_reach_the_constructor_and_come_first():
    denoiser, spec = lookup.build(
        "denoiser", "unet:channels=(8,),groups=4", process=DiscreteVP(), shape=(3, 8, 8), head=8
    )
    assert denoiser.shape == (3, 8, 8)
    process = "vp(schedule=linear,T=1000,beta_min=0.0001,beta_max=0.02)"
    assert spec.startswith(f"unet:process={process},parameterization=v,shape=(3, 8, 8),channels=(8,),")
    assert lookup.build("sampler", "ddim:eta=1", eta=0.0)[0] == DDIM(eta=0.0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "ddim:etta=0",
            "sampler ddim has no option 'etta'; did you mean 'eta'? its options: eta, grid, clip",
        ),
        ("ddim:zzz=0", "sampler ddim has no option 'zzz'; its options: eta, grid, clip"),
        ("ddim:eta=abc", "sampler ddim: eta='abc' is not float; give eta as float"),
        ("ddim:eta=True", "sampler ddim: eta=True is not float; give eta as float"),
        ("ddim:clip=one", "sampler ddim: clip='one' is not float or None; give clip as float or None"),
        ("ddim:grid=3", "sampler ddim: grid=3 is not str or list of float; write grid='3'"),
        ("ddim:eta=2", "ddim: eta=2.0 is out of range; give a number from 0 to 1"),
    ],
)
def test_bad_options_are_usage_errors(spec, message):
    with pytest.raises(UsageError) as caught:
        lookup.build("sampler", spec)
    assert str(caught.value) == message


def test_an_option_that_must_be_given_is_asked_for():
    with pytest.raises(UsageError, match="denoiser unet needs the option 'process'"):
        lookup.build("denoiser", "unet")


def test_choices_are_named():
    with pytest.raises(UsageError, match=r"weighting='snr' is not 'uniform' or 'truncated-snr' or 'min-snr'"):
        lookup.build("objective", "simple:weighting=snr")


def test_unknown_names_are_unavailable():
    with pytest.raises(PluginUnavailable, match="did you mean 'cfg'"):
        lookup.build("guidance", "cgf")


def test_constructors_that_refuse_a_value_give_one_line():
    class Fussy:
        def __init__(self, a=1):
            raise ValueError("not\nthis")

    checked_options("sampler fussy", Fussy, {"a": 2})
    assert resolved_options(Fussy, {}) == {"a": 1}


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, int, True),
        (True, int, False),
        (1, float, False),  # widened by checked_options
        (1.0, float | None, True),
        (None, float | None, True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        ((1, 2), Sequence[int], True),
        ([1, 2], tuple[int, ...], True),
        ((1,), tuple[int, int], False),
        ((1, "a"), Sequence[int], False),
        (3, Sequence[int], False),
        (3, DDIM, False),
        (DDIM(), Sampler, True),
        ("UNet", Denoiser | str, True),
        (3, Denoiser | str, False),
        (3, complex, True),  # not ours to judge
    ],
)
def test_values_are_compared_with_annotations(value, annotation, expected):
    assert fits(value, annotation) is expected


def test_options_of_any_name_pass_to_a_constructor_that_takes_any():
    def anything(**options):
        return options

    assert checked_options("dataset any", anything, {"x": 1}) == {"x": 1}


def test_look_ups_are_functions_of_the_package_and_modules_are_found_beside_them():
    assert isinstance(trilemma.sampler("ddim"), Sampler)
    assert trilemma.interfaces.sampler.Sampler is Sampler
    assert trilemma.process("vp", T=10).T == 10
    assert trilemma.guidance("cfg:scale=3").scale == 3.0
    assert trilemma.objective("simple").weighting == "uniform"


def test_look_ups_work_before_any_module_is_imported():
    code = "import trilemma; print(trilemma.sampler('ddim'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["DDIM(eta=0.0, grid='trailing', clip=None)"]


def test_importing_the_package_imports_no_torch_and_every_name_exists():
    code = "import sys, trilemma; assert not {'torch', 'numpy'} & set(sys.modules)\n"
    code += "for name in trilemma.__all__: getattr(trilemma, name)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="samplr"):
        _ = trilemma.samplr
