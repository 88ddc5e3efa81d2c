"""Measurements at several values of one option of a request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from trilemma.engine.request import OF_STAGES, OF_TOLD_IMAGES, Request
from trilemma.errors import UsageError, shown
from trilemma.evaluate.evaluation import check_request, evaluate
from trilemma.evaluate.evaluator import Evaluator
from trilemma.registry.spec import Spec, parse_value

_OF_A_REQUEST = ("sampler", "steps", "guidance", "seed")


@dataclass(frozen=True)
class Swept:
    """An option and the values that it takes one after the other.

    Attributes:
        name: sampler, steps, guidance or seed; of stage 2 of a cascade stage.2.steps, stage.2.noise and so on; of a
            condition that the data set does not give cond.NAME.
        values: of the option.

    Raises:
        UsageError: for another name, or no value.
    """

    name: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        self._path()
        if not self.values:
            raise UsageError(f"the option {self.name!r} has no values; give some, such as {self.name}=1,2,3")

    def applied(self, request: Request, evaluator: Evaluator, value: Any) -> tuple[Request, Evaluator]:
        """Returns a request and an evaluator with the option at a value."""
        kind, number, name = self._path()
        if kind == "cond":
            return request, evaluator.with_cond({**evaluator.cond, name: value})
        if kind == "stage":
            stages = dict(request.stages or {})
            return replace(
                request, stages={**stages, number: {**stages.get(number, {}), name: value}}
            ), evaluator
        options: dict[str, Any] = {name: value}
        return replace(request, **options), evaluator

    def _path(self) -> tuple[str, int, str]:
        parts = self.name.split(".")
        match parts:
            case [name] if name in _OF_A_REQUEST:
                return "", 0, name
            case ["cond", name] if name.isidentifier():
                return "cond", 0, name
            case ["stage", number, name] if number.isdecimal() and name in (*OF_STAGES[:3], *OF_TOLD_IMAGES):
                return "stage", int(number), name
        raise UsageError(
            f"unknown option {shown(self.name)}; give one of {', '.join(_OF_A_REQUEST)}, stage.2.noise (or steps, "
            "sampler, guidance, truncated of any stage), or cond.NAME"
        )


def parse_swept(text: str) -> Swept:
    """Returns the option of a text such as "stage.2.noise=0,0.05,0.1" or "sampler=[ddim,unipc]".

    Raises:
        UsageError: for a text of another form, or an unknown option.
    """
    name, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not values:
        raise UsageError(
            f"--option {shown(text)} is not NAME=VALUES; write for example stage.2.noise=0,0.1,0.2"
        )
    listed = parse_value(values if values[0] == "[" and values[-1] == "]" else f"[{values}]")
    return Swept(name, tuple(str(value) if isinstance(value, Spec) else value for value in listed))


def sweep(request: Request, evaluator: Evaluator, swept: Swept) -> Iterator[dict[str, Any]]:
    """Yields the record of `evaluate` for each value, which it names as `value`.

    Every value is checked before the first is measured. All have the same seed, so that their samples differ by the
    option alone.

    Raises:
        TrilemmaError: as `evaluate` does.
    """
    asked = [swept.applied(request, evaluator, value) for value in swept.values]
    for one in asked:
        check_request(*one)
    for value, one in zip(swept.values, asked, strict=True):
        yield {"option": swept.name, "value": value, **evaluate(*one)}
