"""Quality, coverage and speed: samplers on one model at equal numbers of evaluations, and other models beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trilemma import lookup
from trilemma.checks import checked_integer
from trilemma.engine.provenance import describe_model, versions
from trilemma.engine.request import Request
from trilemma.engine.resolve import asked_steps, default_sampler
from trilemma.errors import PluginUnavailable, TrilemmaError, UsageError, one_line
from trilemma.evaluate import Evaluator, evaluate
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import Unguided
from trilemma.interfaces.sampler import Sampler
from trilemma.output.atomic import telling
from trilemma.registry import Component, SamplerSpec, building, catalog
from trilemma.registry.spec import parse_spec

BUDGETS = (4, 6, 8, 10, 15, 20, 30, 50, 100)

Record = dict[str, Any]


@dataclass(frozen=True)
class Conditions:
    """The conditions that all cells of a run share.

    Attributes:
        n: samples a cell; the bias of the Fréchet distance depends on it, so cells of unequal n do not compare.
        seed, batch_size: as in `trilemma.sample`.
        speed: whether images/s are recorded; without them, cells can be measured on a busy machine.
        progress: show a progress bar a cell on stderr.
    """

    n: int = 2000
    seed: int = 0
    batch_size: int = 250
    speed: bool = True
    progress: bool = False


def contenders(given: Sequence[str] = (), components: int = 1) -> list[str]:
    """Returns the specs to measure: those given, or every registered sampler that runs on so many components,
    with its defaults and its variants."""
    if given:
        return list(given)
    found = []
    for entry in catalog().components("sampler"):
        if not _fits(entry, components):
            continue
        variants = entry.spec.variants if isinstance(entry.spec, SamplerSpec) else ()
        found += [entry.address, *(f"{entry.address}:{variant}" for variant in variants)]
    return found


def _fits(entry: Component, components: int) -> bool:
    """Returns whether a sampler runs on such a process; one that fails to import is measured, to report the reason."""
    try:
        declared = getattr(building.import_target(entry), "components", (1,))
    except PluginUnavailable:
        return True
    return declared is None or components in declared


def steps_within(sampler: Sampler, budget: int) -> int:
    """Returns the largest number of steps that pays at most `budget` evaluations of the network.

    Raises:
        UsageError: where one step pays more, or where steps adapt to a tolerance.
    """
    if sampler.tolerance is not None:
        raise UsageError("its steps adapt to a tolerance and not to a number of evaluations")
    for steps in range(budget, 0, -1):
        if sampler.nfe(steps) <= budget:
            return steps
    raise UsageError(f"one step pays {sampler.nfe(1)} evaluations of the network, more than {budget}")


@dataclass(frozen=True)
class _Cell:
    """A measurement: of a model with a sampler, at a budget or, where its card says how it is drawn, with its steps.

    Attributes:
        made: the sampler; or the reason why it could not be made.
        spec: of the sampler.
        owner: the distribution that it comes from, with its version.
        budget: evaluations that a sample may pay; None for the steps and the guidance of the model's card.
    """

    model: Denoiser
    made: Sampler | str
    spec: str
    owner: str
    budget: int | None

    @property
    def own(self) -> bool:
        """Whether the model is drawn as its card says."""
        return self.budget is None

    def steps(self) -> int:
        """Returns the steps that the budget pays, or those of the model's card.

        Raises:
            UsageError: where it pays none, or there is no sampler.
        """
        if isinstance(self.made, str):
            raise UsageError(self.made)
        return asked_steps(None, self.model) if self.budget is None else steps_within(self.made, self.budget)

    def evaluator(self, shared: Evaluator) -> Evaluator:
        """Returns an evaluator, with those values of conditions that the card of a model beside names."""
        return (
            shared.with_cond((self.model.card or {}).get("evaluation", {}).get("cond", {}))
            if self.own
            else shared
        )

    def request(self, steps: int, conditions: Conditions) -> Request:
        """Returns the request of its samples."""
        return Request(
            self.model,
            conditions.n,
            sampler=self.made,
            steps=steps,
            guidance=None if self.own else Unguided(),
            batch_size=conditions.batch_size,
            seed=conditions.seed,
            progress=conditions.progress,
        )


def records(
    model: Denoiser,
    evaluator: Evaluator,
    samplers: Sequence[str],
    budgets: Sequence[int],
    conditions: Conditions,
    out: Path | None = None,
    beside: Sequence[Denoiser] = (),
) -> Iterator[Record]:
    """Yields a record for each sampler and budget of a model, and one for each model beside it.

    Those are drawn with the sampler, steps and guidance of their own cards; their records say `own`. All are measured
    by one evaluator. A cell that cannot be run says why as `reason`.

    With `out`, records are appended to that file as they come, and a cell that it holds for the same weights, n,
    seed, dtype and versions is not measured again; one that failed is.

    Raises:
        UsageError: for an impossible budget or n, a spec that names no sampler, or a file of something else.
        OutputError: where the disk refuses.
    """
    if any(budget < 1 for budget in budgets):
        raise UsageError(f"NFE budgets {list(budgets)} are not all at least 1; give for example --nfe 10")
    checked_integer(conditions.n, "n", 1, what="is not a number of samples")
    built: dict[str, tuple[Sampler | str, str]] = {}
    for given in samplers:
        made, spec = _built(given)
        built.setdefault(spec, (made, _owner(given)))
    known = _known(out) if out else []
    # Budgets come first, so that a run that is stopped has every sampler at the smaller ones.
    cells = [
        _Cell(model, made, spec, owner, budget) for budget in budgets for spec, (made, owner) in built.items()
    ]
    for cell in (*cells, *map(_own_cell, beside)):
        record = _record(cell, cell.evaluator(evaluator), conditions, known)
        if record not in known:
            known.append(record)
            if out:
                with telling(out), out.open("a", encoding="utf-8") as file:
                    print(json.dumps(record, ensure_ascii=False), file=file, flush=True)
        yield record


def _own_cell(model: Denoiser) -> _Cell:
    given = model.usual_sampler or default_sampler(model.process)
    made, spec = _built(given)
    return _Cell(model, made, spec, _owner(given), None)


def _record(cell: _Cell, evaluator: Evaluator, conditions: Conditions, known: Sequence[Record]) -> Record:
    own: Record = {"own": True} if cell.own else {}
    key: Record = {**_shared(cell.model, evaluator, conditions), "from": cell.owner}
    key |= {"sampler": cell.spec, "steps": None}
    if cell.own and cell.model.usual_guidance is not None:
        key["guidance"] = cell.model.usual_guidance
    try:
        key["steps"] = cell.steps()
        for record in known:
            if record["key"] == key and record["reason"] is None:
                return {**record, "budget": record["nfe"] if cell.own else cell.budget, **own}
        measured = evaluate(cell.request(key["steps"], conditions), evaluator)
    except Exception as error:
        # Other people's samplers may raise anything; the others are still measured.
        text = str(error) if isinstance(error, TrilemmaError) else f"{type(error).__name__}: {error}"
        found: Record = {"key": key, "budget": cell.budget, "reason": one_line(text), "nfe": None}
        return {**found, "metrics": {}, **own}
    return {
        "key": key,
        "budget": measured["nfe"] if cell.own else cell.budget,
        "reason": None,
        "nfe": measured["nfe"],
        "images_per_second": measured["images_per_second"] if conditions.speed else None,
        "backend": measured["backend"],
        "metrics": measured["metrics"],
        **own,
    }


def _built(given: str) -> tuple[Sampler | str, str]:
    """A sampler with its canonical spec; or why it could not be made, with the spec as given."""
    # A name that nobody has is the caller's mistake, not a row of the table.
    catalog().find("sampler", parse_spec(given).name)
    try:
        made, spec = lookup.build("sampler", given)
    except TrilemmaError as error:
        return str(error), given
    return (made, spec) if isinstance(made, Sampler) else (f"{spec} is not a Sampler", spec)


def _owner(given: str) -> str:
    plugin = catalog().find("sampler", parse_spec(given).name).plugin
    return f"{plugin.distribution} {plugin.version}"


def _shared(model: Denoiser, evaluator: Evaluator, conditions: Conditions) -> Record:
    """Returns the settings that decide the numbers of all cells; the threads only where speed is one of them."""
    parameter = next(iter(model.own_tensors()), None)
    return {
        "model": describe_model(model),
        "n": conditions.n,
        "seed": conditions.seed,
        "network_dtype": None if parameter is None else str(parameter.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads() if conditions.speed else None,
        "batch_size": conditions.batch_size if conditions.speed else None,
        "versions": versions(),
        **evaluator.describe(),
    }


def _known(out: Path) -> list[Record]:
    """The records of a file; a last line that an interrupted run left unfinished is cut off."""
    if not out.exists():
        return []
    with telling(out):
        text = out.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            out.write_text(whole, encoding="utf-8")
    try:
        found = [json.loads(line) for line in whole.splitlines() if line.strip()]
        if all({"key", "budget", "reason"} <= record.keys() for record in found):
            return found
    except (ValueError, AttributeError):
        pass
    raise UsageError(f"{out} holds no JSON lines of bench samplers; give another --out")
