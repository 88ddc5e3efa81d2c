"""A trained model on disk: `model.toml` says what it is, `weights.safetensors` holds its weights.

    format = 1
    [model]       name, summary
    [process]     spec
    [denoiser]    spec, parameterization, [denoiser.options]
    [weights]     file, sha256
    [data]        shape, range, classes, dataset
    [sampling]    sampler, guidance: those used where a request names none
    [evaluation]  data set, features and metrics of `trilemma eval`
    [provenance]  how it was made

Reading checks the format version and the sha256 of the weights; nothing is unpickled. `weights.file` is the plain name
of a regular file in the directory; its numbers are read only once its header was found to fit the network of the card.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import tomli_w
import torch
from safetensors.torch import save
from torch import Tensor

from trilemma import lookup
from trilemma.errors import ModelError, TrilemmaError, UsageError, nearest, shown
from trilemma.files.partials import held, partial_name, remove_stale
from trilemma.files.regular import file_inside
from trilemma.files.toml import read_toml
from trilemma.files.weights import Misfit, WeightsFile, allowance_for
from trilemma.interfaces.condition import LABEL
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.machine.device import usable_device
from trilemma.models.card_values import wrong_value
from trilemma.models.construction import Constructing
from trilemma.models.weights import loaded_from

FORMAT = 1

# Table -> (required keys, optional keys), each with its type.
_KEYS: dict[str, tuple[dict[str, type], dict[str, type]]] = {
    "model": ({"name": str}, {"summary": str}),
    "process": ({"spec": str}, {}),
    "denoiser": ({"spec": str, "parameterization": str}, {"options": dict}),
    "weights": ({"file": str, "sha256": str}, {}),
    "data": ({"shape": list}, {"range": list, "classes": list, "dataset": str}),
    "sampling": ({}, {"sampler": str, "guidance": str}),
}
_MAY_BE_MISSING = {"sampling"}
_WEIGHTS = "weights.safetensors"
_IN_TOML: dict[type, str] = {str: "a string", dict: "a table", list: "an array"}
_FREE_TABLES = {"evaluation", "provenance"}


def load_model(
    path: Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> Denoiser:
    """Loads the denoiser in a model directory, in evaluation mode and without gradients.

    Args:
        path: the directory.
        device: where to put it; CPU by default.
        dtype: dtype of the weights; float32 by default.

    Raises:
        ModelError: for a missing or damaged file, an unknown key or format, or weights that are not the ones named.
        PluginUnavailable: for a network or process that no plugin brings.
        TrilemmaError: for a device that cannot be used.
    """
    device = usable_device(device)
    card = read_card(path)
    with _weights(path, card) as weights:
        try:
            with allowance_for(weights.header()):
                denoiser = build_denoiser(card, seed=0)
        except UsageError as error:
            # The author of the card made the error, not the user.
            raise ModelError(f"{path / 'model.toml'}: {error}; restore the model") from error
        tensors = weights.read(denoiser)
    denoiser.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    denoiser.card = card
    denoiser.name_classes(LABEL, card["data"].get("classes", ()))
    denoiser.to(device, dtype or torch.float32).eval().requires_grad_(False)
    loaded_from(denoiser, card["weights"]["sha256"])
    return denoiser


def build_denoiser(card: Mapping[str, Any], seed: int) -> Denoiser:
    """Builds the denoiser that a card describes, its initial weights decided by `seed`, in float32 on the CPU.

    Torch's global generators are neither read nor changed, and its default dtype and device are not read.
    """
    table = card["denoiser"]
    with torch.device("cpu"), Constructing(seed):
        process, _ = lookup.build("process", card["process"]["spec"])
        denoiser, _ = lookup.build(
            "denoiser",
            table["spec"],
            process=cast(Process, process),
            parameterization=table["parameterization"],
            shape=tuple(card["data"]["shape"]),
            **table.get("options", {}),
        )
    return cast(Denoiser, denoiser)


def read_card(path: Path) -> dict[str, Any]:
    """Reads and checks `path/model.toml` and returns its content.

    Raises:
        ModelError: for a missing file, bad TOML, another format, an unknown or a missing key, an ill-typed value.
    """
    file = path / "model.toml"
    try:
        card = read_toml(file)
    except OSError as error:
        raise ModelError(
            f"{path} is no model directory ({file.name}: {error.strerror}); give a model's name or directory"
        ) from error
    except ValueError as error:
        raise ModelError(f"{file} is no valid TOML: {error}; restore the model") from error
    if type(card.get("format")) is not int or card["format"] != FORMAT:
        raise ModelError(
            f"{file} has format {shown(card.get('format'))}, this version reads format {FORMAT}; upgrade trilemma"
        )
    _check_keys(file, "", set(card), {"format", *_KEYS} - _MAY_BE_MISSING, _FREE_TABLES | _MAY_BE_MISSING)
    for table, (required, optional) in _KEYS.items():
        if table not in card:
            continue
        if not isinstance(card[table], dict):
            raise ModelError(f"{file}: {table!r} must be a table; write [{table}]")
        _check_keys(file, f"{table}.", set(card[table]), set(required), set(optional))
        for key, value in card[table].items():
            expected = {**required, **optional}[key]
            if not isinstance(value, expected):
                raise ModelError(
                    f"{file}: {table}.{key} = {shown(value)} is not {_IN_TOML[expected]}; restore the model"
                )
    for table in _FREE_TABLES & set(card):
        if not isinstance(card[table], dict):
            raise ModelError(f"{file}: {table!r} must be a table; write [{table}]")
    if wrong := wrong_value(card):
        raise ModelError(f"{file}: {wrong}; restore the model")
    return card


def save_model(path: Path, card: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes a model directory whole or not at all; `weights.file` and `weights.sha256` are filled in.

    Args:
        path: the directory; an existing model directory there is replaced.
        card: the tables of model.toml but for `format` and `weights`.
        tensors: the state dict, in the dtype in which it is to be stored.

    Raises:
        ModelError: where the disk refuses or `path` is something else; nothing is left behind.
    """
    if path.exists() and not (path / "model.toml").is_file():
        raise ModelError(f"{path} exists and is no model directory; choose another place")
    blob = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    text = card_text(card, hashlib.sha256(blob).hexdigest())
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path)
        partial.mkdir()
        with held(partial):
            for name, content in ((_WEIGHTS, blob), ("model.toml", text.encode())):
                with (partial / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            shutil.rmtree(path, ignore_errors=True)
            partial.rename(path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ModelError(
            f"cannot write model {path}: {error.strerror or error}; free space or choose another place"
        ) from error


def card_text(card: Mapping[str, Any], sha256: str) -> str:
    """Returns the model.toml of a card whose weights have this sha256.

    Raises:
        UsageError: for a value that TOML or UTF-8 has no form for.
    """
    weights = {"file": _WEIGHTS, "sha256": sha256}
    try:
        text = tomli_w.dumps(_without_none({"format": FORMAT, **card, "weights": weights}))
        text.encode()
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        raise UsageError(f"the model's card cannot be written: {reason}; use values that TOML has") from error
    return text


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: a value that is None is left out."""
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }


@contextlib.contextmanager
def _weights(path: Path, card: Mapping[str, Any]) -> Iterator[WeightsFile]:
    """The weights of a model, their sha256 checked; what is wrong with them becomes a ModelError."""
    file = path / str(card["weights"]["file"])
    try:
        with WeightsFile(file_inside(path, card["weights"]["file"])) as weights:
            found = weights.sha256()
            if found != card["weights"]["sha256"]:
                raise ModelError(
                    f"{file} is damaged or not the one its model.toml names: sha256 {found[:12]}…, "
                    f"expected {str(card['weights']['sha256'])[:12]}…; restore the model"
                )
            yield weights
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}; restore the model") from error
    except Misfit as error:
        raise ModelError(
            f"the weights in {path} do not fit its [denoiser] table: {error}; restore the model"
        ) from error
    except TrilemmaError:
        raise
    except ValueError as error:
        raise ModelError(f"{file} is no safetensors file ({error}); restore the model") from error


def _check_keys(file: Path, prefix: str, found: set[str], required: set[str], optional: set[str]) -> None:
    for key in sorted(found - required - optional):
        near = nearest(key, required | optional)
        hint = (
            f"did you mean {prefix + near[0]!r}?"
            if near
            else f"known keys: {', '.join(sorted(required | optional))}"
        )
        raise ModelError(f"{file}: unknown key {prefix + key!r}; {hint}")
    for key in sorted(required - found):
        raise ModelError(f"{file}: key {prefix + key!r} is missing; restore the model")
