"""Quality, coverage and speed of samplers at equal numbers of network evaluations, on one model."""

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


def records(
    model: Denoiser,
    evaluator: Evaluator,
    samplers: Sequence[str],
    budgets: Sequence[int],
    conditions: Conditions,
    out: Path | None = None,
) -> Iterator[Record]:
    """Yields a record for each sampler and budget; one that cannot be run there says why as `reason`.

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
    shared = _shared(model, evaluator, conditions)
    # Budgets come first, so that a run that is stopped has every sampler at the smaller ones.
    for budget in budgets:
        for spec, (made, owner) in built.items():
            record = _cell(model, evaluator, made, spec, budget, {**shared, "from": owner}, conditions, known)
            if record not in known:
                known.append(record)
                if out:
                    with telling(out), out.open("a", encoding="utf-8") as file:
                        print(json.dumps(record, ensure_ascii=False), file=file, flush=True)
            yield record


def _cell(
    model: Denoiser,
    evaluator: Evaluator,
    made: Sampler | str,
    spec: str,
    budget: int,
    shared: Record,
    conditions: Conditions,
    known: Sequence[Record],
) -> Record:
    key: Record = {**shared, "sampler": spec, "steps": None}
    try:
        if isinstance(made, str):
            raise UsageError(made)
        key["steps"] = steps_within(made, budget)
        for record in known:
            if record["key"] == key and record["reason"] is None:
                return {**record, "budget": budget}
        measured = evaluate(
            Request(
                model,
                conditions.n,
                sampler=made,
                steps=key["steps"],
                guidance=Unguided(),
                batch_size=conditions.batch_size,
                seed=conditions.seed,
                progress=conditions.progress,
            ),
            evaluator,
        )
    except Exception as error:
        # Other people's samplers may raise anything; the others are still measured.
        text = str(error) if isinstance(error, TrilemmaError) else f"{type(error).__name__}: {error}"
        return {"key": key, "budget": budget, "reason": one_line(text), "nfe": None, "metrics": {}}
    return {
        "key": key,
        "budget": budget,
        "reason": None,
        "nfe": measured["nfe"],
        "images_per_second": measured["images_per_second"] if conditions.speed else None,
        "backend": measured["backend"],
        "metrics": measured["metrics"],
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
