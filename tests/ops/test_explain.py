"""The backend that ran is never hidden."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trilemma.errors import TrilemmaError, UsageError
from trilemma.ops import explain, layout, linear_step, native

needs_native = pytest.mark.skipif(bool(native.load()), reason=native.load())


def arguments(dtype: torch.dtype = torch.float32, **changes: Any) -> dict[str, Any]:
    z = torch.zeros(2, 6, dtype=dtype)
    table = torch.zeros(1, layout.WIDTH, dtype=torch.float64)
    return {"out": z.clone(), "z": z, "base": z, "output": z, "table": table, "row": 0, **changes}


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_native(dtype: torch.dtype) -> None:
    found = explain("linear_step", **arguments(dtype), seed=2**64 - 1)
    assert (found.backend, found.passed_over) == ("native", {})
    assert str(found) == "linear_step runs on native"


@needs_native
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dtype": torch.float64}, "not float32, bfloat16 or float16"),
        ({"base": torch.zeros(2, 6, dtype=torch.bfloat16)}, "differ in dtype"),
        ({"z": torch.zeros(2, 12)[:, ::2]}, "not contiguous"),
        ({"noise": torch.zeros(6, 2).T}, "not contiguous"),
    ],
)
def test_reasons(changes: dict[str, Any], why: str) -> None:
    found = explain("linear_step", **arguments(**changes))
    assert found.backend == "reference"
    assert why in found.passed_over["native"]
    assert why in str(found)


@needs_native
def test_an_input_that_overlaps_out_shifted() -> None:
    out = torch.zeros(4, 6)
    assert "shifted" in explain("linear_step", **arguments(out=out, z=out[1:3])).passed_over["native"]
    assert explain("linear_step", **arguments(out=out, z=out[2:4])).backend == "native"


def test_a_forced_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILEMMA_BACKEND", "reference")
    assert explain("linear_step").passed_over == {"native": "TRILEMMA_BACKEND=reference"}
    linear_step(**arguments())


@needs_native
def test_a_forced_native_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILEMMA_BACKEND", "native")
    linear_step(**arguments())
    with pytest.raises(TrilemmaError, match=r"^TRILEMMA_BACKEND=native, but .* z is not float32"):
        linear_step(**arguments(torch.float64))


def test_an_unknown_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILEMMA_BACKEND", "fast")
    with pytest.raises(UsageError, match="choose from auto, native, reference"):
        linear_step(**arguments())


def test_an_unknown_operator() -> None:
    with pytest.raises(UsageError, match=r"choose from .*linear_step"):
        explain("conv")


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="row 1 is outside"):
        explain("linear_step", **arguments(row=1))


def test_the_signature_is_shown_where_no_arguments_are_given() -> None:
    assert str(explain("attention")).startswith("attention(q, k, v, scale")
    assert "linear_step(out, z, base, output, table, row" in str(explain("linear_step"))
    assert explain("linear_step", **arguments()).signature == ""


def test_arguments_of_another_operator_are_refused_with_the_signature() -> None:
    with pytest.raises(
        UsageError, match=r"missing a required argument: 'z'; the operator takes linear_step\(out, z"
    ):
        explain("linear_step", torch.zeros(1))
