"""Preparation of a run: all that a recipe names is built and tried before anything is written."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import trilemma
from trilemma import lookup
from trilemma.engine.drawing import sample_chunks
from trilemma.errors import DataError, ModelError, PluginUnavailable, TrilemmaError, UsageError, message_of
from trilemma.evaluate.splits import Training
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.dataset import Dataset
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.held_out import held_out
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.update import loss_and_scalars
from trilemma.machine.global_generators import seeded
from trilemma.models import card as model_directory
from trilemma.models.building import build, build_alike
from trilemma.models.card_tables import USUAL
from trilemma.models.loading import load_of
from trilemma.numerics.step_keys import STREAMS, step_generator, step_key
from trilemma.output.picture import check_channels
from trilemma.registry import building, catalog
from trilemma.registry.options import checked_options
from trilemma.registry.spec import parse_spec
from trilemma.train.data_order import DataOrder
from trilemma.train.evaluation import check_evaluation
from trilemma.train.examples import Reader
from trilemma.train.log_names import check_scalars
from trilemma.train.networks import Latent as LatentTable
from trilemma.train.parts import Parts, shared_parameters
from trilemma.train.precision import Precision
from trilemma.train.processes import Processes
from trilemma.train.recipe import Recipe, Sampling
from trilemma.train.start import Start, begin_with

# Streams of keys: of the step that is tried before the first, and of an autoencoder's initial weights.
TRIAL, CODER = 5, 10
_USUAL_STEPS = 50
# Copies of the weights in a checkpoint: themselves, their average and two moments.
_COPIES = 4


@dataclass(frozen=True)
class Prepared:
    """The parts of a run, ready to train.

    Attributes:
        data: the data to train on, with what the model is told of them.
        validation: those that the losses of the averaged weights are measured on; None for none.
        fingerprints: of the recipe, and of the data set as a whole.
        card: of the model that it will write.
        coder_card: of the autoencoder that it will write with it; None where none learns.
        order: gives the examples of each step.
    """

    data: Reader
    validation: Reader | None
    fingerprints: tuple[str, str]
    objective: Objective
    parts: Parts
    card: dict[str, Any]
    coder_card: dict[str, Any] | None
    order: DataOrder


def prepare(recipe: Recipe, folder: Path, processes: Processes) -> Prepared:
    """Builds what a recipe names, and tries all that the run will need: one forward pass, every grid, the card.

    Nothing is written.

    Raises:
        TrilemmaError: for a part that does not exist or does not fit, or a result that could not be written at the end.
    """
    _check_surroundings(recipe, processes.device)
    _check_place(folder)
    precision = Precision(recipe.precision, processes.device)
    dataset = _built("dataset", recipe.dataset.spec, Dataset)
    _check_data(dataset, recipe.dataset.spec)
    dataset.check()
    data_fingerprint = dataset.fingerprint()
    validation = _validation_set(recipe, dataset)
    if recipe.validation.fraction:
        dataset, validation = held_out(dataset, recipe.validation.fraction, recipe.seed)
    order = DataOrder(len(dataset), recipe.batch_size, recipe.seed, processes.rank, processes.world)
    objective = _built("objective", recipe.objective.spec, Objective)
    card = _card(recipe, dataset)
    start: Start | None = None
    with _saying(recipe.kind):
        coder = None if recipe.latent is None else _coder(recipe.latent, card, recipe.seed)
        model: nn.Module = build(card, recipe.seed, coder)
    digest = None if coder is None else (coder.card or {}).get("weights", {}).get("sha256")
    with _saying("objective"):
        provided = _provided(objective, model)
    if recipe.start is not None:
        with _saying("start"):
            start = begin_with(model, recipe.start)
        card["provenance"] |= {"start": start.name, "start_sha256": start.sha256}
    if recipe.validation.fraction:
        card["provenance"] |= {"held_out": recipe.validation.fraction, "data_sha256": data_fingerprint}
        if start is not None:
            this = dataclasses.replace(cast(Training, Training.of(card)), began_elsewhere=False)
            card["provenance"]["start_held_out"] = start.training == this
    encoders = _encoders(model)
    if encoders:
        card["provenance"]["encoders"] = encoders
        # A network that is told texts learns from their embeddings: another encoder makes other data.
        told = json.dumps([data_fingerprint, encoders], sort_keys=True)
        data_fingerprint = hashlib.sha256(told.encode()).hexdigest()
    fingerprint = recipe.fingerprint(None if start is None else start.sha256, digest)
    card["provenance"]["recipe_sha256"] = fingerprint
    model_directory.card_text(card, "0" * 64)
    with _saying("objective"):
        parts = Parts(objective, model, recipe.seed, processes.device)
        _check_apart(parts)
        if parts.coder is None and recipe.latent is not None and recipe.latent.spec is not None:
            raise UsageError(
                f"{recipe.objective.spec} trains no autoencoder, and latent.spec is an untrained one; name a trained "
                "one as latent.autoencoder"
            )
        for update in parts.updates:
            recipe.optimizer.of(update)
    together = parts.coder is not None
    if digest is not None and not together:
        card["latent"]["sha256"] = digest
    reads = recipe.steps * recipe.batch_size
    data = Reader(dataset, model, processes.device, provided, together, reads)
    measured = None if validation is None else Reader(validation, model, processes.device, provided, together)
    recipe.optimizer.check_names(parts.updates)
    _check_samples(recipe, model)
    _check_evaluation(recipe, model, card)
    fingerprints = fingerprint, data_fingerprint
    coder_card = _coder_card(coder, card) if coder is not None and together else None
    prepared = Prepared(data, measured, fingerprints, objective, parts, card, coder_card, order)
    _try(recipe, prepared, precision, processes)
    _check_space(folder, parts)
    return prepared


def fresh_model(like: nn.Module, card: dict[str, Any], device: torch.device) -> nn.Module:
    """Returns a model like another of a card, its weights still to be loaded; it leaves the generators alone."""
    return cast(nn.Module, build_alike(like, card, seed=0)).to(device)


def _check_surroundings(recipe: Recipe, device: torch.device) -> None:
    if torch.get_default_dtype() != torch.float32:
        raise UsageError(
            f"torch's default dtype is {torch.get_default_dtype()}, under which a run would end with other weights; "
            "call torch.set_default_dtype(torch.float32) first"
        )
    if recipe.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise PluginUnavailable(
            'recipe: tensorboard = true needs the package tensorboard; pip install "trilemma[train]", '
            "or set tensorboard = false"
        )
    if not recipe.compile or device.type != "cpu":
        return
    # Inductor's backward under autocast on a CPU gives most convolutions a gradient of 0.
    if recipe.precision != "no":
        raise UsageError(
            f'recipe: compile = true loses gradients with precision = "{recipe.precision}" on a CPU; '
            'set compile = false or precision = "no"'
        )
    if not any(map(shutil.which, (os.environ.get("CXX") or "g++", "clang++"))):
        raise UsageError(
            "recipe: compile = true needs a C++ compiler on a CPU; install g++, or set compile = false"
        )


def _check_place(folder: Path) -> None:
    for place in (folder, *folder.absolute().parents):
        if os.path.lexists(place):
            if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
                reason = "Permission denied" if place.is_dir() else f"{place} is no folder"
                raise ModelError(f"cannot write to {folder}: {reason}; choose another --out")
            return


def _validation_set(recipe: Recipe, dataset: Dataset) -> Dataset | None:
    spec = recipe.validation.dataset
    if spec is None:
        return None
    with _saying("validation"):
        found: Dataset = _built("dataset", spec, Dataset)
        _check_data(found, spec)
        if tuple(found.shape) != tuple(dataset.shape) or found.classes != dataset.classes or not len(found):
            raise DataError(
                f"dataset {spec} has {len(found)} images of {tuple(found.shape)} in {len(found.classes)} classes, the "
                f"training set {tuple(dataset.shape)} in {len(dataset.classes)}, by name; choose one like it"
            )
        found.check()
    return found


def _check_data(dataset: Dataset, spec: str) -> None:
    labels, classes = dataset.labels, len(dataset.classes)
    if not isinstance(labels, Tensor) or labels.dim() != 1 or labels.is_floating_point():
        raise DataError(f"dataset {spec}: its labels are no vector of integers; correct the data set")
    if classes and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"dataset {spec}: labels reach from {int(labels.min())} to {int(labels.max())}, "
            f"for {classes} classes they must from 0 to {classes - 1}; correct the data set"
        )
    for name in dataset.classes:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"dataset {spec}: the class {name!a} is no UTF-8, which the model's card is written in; rename it"
            ) from error


def _coder(latent: LatentTable, card: dict[str, Any], seed: int) -> Autoencoder:
    """The autoencoder of a recipe, trained or, with a card but for its weights, untrained."""
    if latent.autoencoder is not None:
        return load_of(Autoencoder, latent.autoencoder)  # type: ignore[type-abstract]
    name = card["model"]["name"] + "-codes"
    own = {
        "model": {**card["model"], "name": name, "summary": f"the codes of {card['model']['name']}"},
        "autoencoder": {"spec": latent.spec, "options": dict(latent.options)},
        "data": card["data"],
    }
    own["model"]["kind"] = "autoencoder"
    made = cast(Autoencoder, build(own, step_key(seed, 0, CODER)))
    made.card = own
    return made


def _coder_card(coder: Autoencoder, card: dict[str, Any]) -> dict[str, Any]:
    """The card of an autoencoder that has learned beside the model of a card."""
    own = dict(coder.card or {})
    weights = own.pop("weights", None)
    own.pop("format", None)
    begun = {} if weights is None else {"start": own["model"]["name"], "start_sha256": weights["sha256"]}
    return {**own, "provenance": {**card["provenance"], **begun}}


def _provided(objective: Objective, model: nn.Module) -> tuple[str, ...]:
    """The names of the conditions that an objective makes itself, all of which the model takes."""
    provided, taken = tuple(objective.provides()), getattr(model, "conditions", {})
    for name in provided:
        if name not in taken:
            raise UsageError(
                f"it tells the network {name!r}, which takes {', '.join(taken) or 'no condition'}; declare it in "
                "[[denoiser.options.conditions]]"
            )
    return provided


def _check_apart(parts: Parts) -> None:
    for first, second in shared_parameters(parts.modules):
        raise UsageError(f"parts {first!r} and {second!r} have weights in common; give each its own")


def _check_samples(recipe: Recipe, denoiser: nn.Module) -> None:
    wanted = recipe.samples
    if not isinstance(denoiser, Denoiser):
        if wanted.every or recipe.sampling != Sampling():
            raise UsageError(
                f"recipe: samples are drawn from a denoiser, and this trains a model of the kind {recipe.kind}; "
                "drop [samples] and [sampling]"
            )
        return
    table = denoiser.process.table
    steps = _USUAL_STEPS if table is None else min(table, _USUAL_STEPS)
    own = steps if recipe.sampling.steps is None else recipe.sampling.steps
    draw = torch.Generator().manual_seed(0)
    first = {name: entry.drawn(1, draw) for name, entry in denoiser.conditions.items()}
    # The others have a null.
    needed = {name: found for name, found in first.items() if not denoiser.conditions[name].has_null}
    if recipe.sampling.sampler is not None or recipe.sampling.steps is not None:
        with _saying("sampling.sampler" if recipe.sampling.sampler is not None else "sampling.steps"):
            sample_chunks(denoiser, 1, sampler=recipe.sampling.sampler, steps=own, cond=needed)
    if recipe.sampling.guidance is not None:
        with _saying("sampling.guidance"):
            sample_chunks(denoiser, 1, guidance=recipe.sampling.guidance, cond=first, steps=own)
    with _saying("samples"):
        if not wanted.every:
            if wanted.sampler is not None:
                _check_spec("sampler", wanted.sampler)
            return
        if denoiser.image_shape[0] not in (1, 3):
            raise UsageError(
                f"images of {denoiser.image_shape[0]} channels make no picture; set samples.every = 0"
            )
        check_channels(denoiser.image_shape[0])
        sample_chunks(
            denoiser,
            wanted.n,
            sampler=wanted.sampler,
            steps=wanted.steps,
            guidance=wanted.guidance,
            cond=dict(wanted.cond),
            seed=recipe.seed,
        )


def _check_evaluation(recipe: Recipe, model: nn.Module, card: dict[str, Any]) -> None:
    asked = recipe.evaluation
    named = [("dataset", asked.get("dataset")), ("metric", asked.get("features"))]
    named += [("metric", metric) for metric in asked.get("metrics", ())]
    with _saying("evaluation"):
        for kind, spec in named:
            if spec is not None:
                _check_spec(kind, spec)
        if not recipe.measured:
            return
        if not isinstance(model, Denoiser):
            raise UsageError(
                f"n = {recipe.measured} samples are those of a denoiser, and this trains a model of the kind "
                f"{recipe.kind}; drop n"
            )
        seen = copy.copy(model)
        seen.card = {**card, "weights": {"sha256": None}}
        check_evaluation(seen, recipe.measured)


def _check_spec(kind: str, spec: str) -> None:
    """Raises where a spec names no component, or an option that it does not have; builds nothing."""
    parsed = parse_spec(spec)
    found = catalog().find(kind, parsed.name)
    checked_options(f"{kind} {found.address}", building.import_target(found), parsed.options)


def _try(recipe: Recipe, prepared: Prepared, precision: Precision, processes: Processes) -> None:
    """Takes the losses of the first batch once, without a gradient and in evaluation mode."""
    model, data, parts = prepared.parts.model, prepared.data, prepared.parts
    if not any(entry.requires_grad for entry in model.parameters()):
        raise UsageError(
            f"{recipe.kind} {recipe.network.spec} has no parameters to train; choose another network"
        )
    seed, rank, device = recipe.seed, processes.rank, processes.device
    with seeded(step_key(seed, 0, TRIAL, rank), device), torch.no_grad(), _saying("the first batch"):
        examples = data.read(prepared.order.indices(0))
        if tuple(examples.x0.shape[1:]) != data.shape:
            raise DataError(
                f"its images are {tuple(examples.x0.shape[1:])}, the data set says {data.shape}; "
                "correct the data set"
            )
        for index, update in enumerate(parts.updates):
            generator = step_generator(seed, 0, TRIAL + STREAMS * index, rank)
            with precision.autocast():
                found = prepared.objective.update_loss(update, examples.step(parts.modules, generator))
            loss, scalars = loss_and_scalars(found)
            check_scalars(update, scalars)
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                raise UsageError(f"objective {recipe.objective.spec} gives no scalar loss; choose another")
            if not bool(loss.isfinite()):
                raise ModelError(
                    f"the loss of the untrained network is {float(loss)}; check its options and the data"
                )


def _check_space(folder: Path, parts: Parts) -> None:
    place = next(entry for entry in (folder, *folder.absolute().parents) if entry.is_dir())
    tensors = [tensor for module in parts.living.values() for tensor in module.state_dict().values()]
    needed = _COPIES * sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ModelError(
            f"a checkpoint takes {needed / 1e6:,.0f} MB and {place} has {free / 1e6:,.0f} MB free; "
            "free space or choose another --out"
        )


def _built(kind: str, spec: str, expected: type) -> Any:
    with _saying(kind):
        made, _ = lookup.build(kind, spec)
        if not isinstance(made, expected):
            raise UsageError(f"{spec} is no {expected.__name__}; choose another {kind}")
        return made


@contextmanager
def _saying(what: str) -> Iterator[None]:
    """Lets an error say which part of the recipe it is about, and be one line, whatever a component raised."""
    try:
        yield
    except TrilemmaError as error:
        raise type(error)(f"recipe: {what}: {error}") from error
    except Exception as error:
        reason = message_of(error, 150) or "no reason was given"
        raise UsageError(
            f"recipe: {what} cannot be used: {type(error).__name__}: {reason}; change the recipe"
        ) from error


def _encoders(model: nn.Module) -> dict[str, str]:
    """Identities of the encoders whose embeddings a model is told, by the names of the conditions."""
    conditions = getattr(model, "conditions", {})
    found = {name: condition.source() for name, condition in conditions.items()}
    return {name: identity for name, identity in found.items() if identity is not None}


def _card(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    drawn = recipe.kind == USUAL
    return {
        "model": {
            "name": recipe.name,
            "summary": recipe.summary,
            **({} if drawn else {"kind": recipe.kind}),
            **({"licence": recipe.licence} if recipe.licence else {}),
        },
        **recipe.card_tables(),
        "data": {
            "shape": list(dataset.shape),
            "range": [-1.0, 1.0],
            "classes": list(dataset.classes),
            "dataset": recipe.dataset.spec,
        },
        **({"sampling": dataclasses.asdict(recipe.sampling)} if drawn else {}),
        "evaluation": recipe.advice,
        "provenance": {
            "objective": recipe.objective.spec,
            "steps": recipe.steps,
            "batch_size": recipe.batch_size,
            "seed": recipe.seed,
            "trilemma": trilemma.__version__,
            "torch": torch.__version__,
        },
    }
