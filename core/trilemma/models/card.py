"""A trained model on disk: `model.toml` says what it is, `weights.safetensors` holds its weights.

    format = 1
    [model]       name, kind, summary, licence
    [process]     spec
    [denoiser]    spec, parameterization, [denoiser.options]
    [latent]      autoencoder, sha256: the model draws codes of this autoencoder, a folder beside the card or a name
    [weights]     file, sha256
    [data]        shape, range, classes, dataset
    [sampling]    sampler, guidance, steps: those used where a request names none
    [evaluation]  data set, features and metrics of `trilemma eval`
    [provenance]  how it was made

`kind` is denoiser where it is not given. An autoencoder, a classifier, features and an encoder have a table of that
name in place of [denoiser]; a cascade has tables [[stage]] and no weights. `trilemma.models.card_tables` has them all.

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
from typing import Any

import tomli_w
import torch
from safetensors.torch import save
from torch import Tensor

from trilemma.errors import ModelError, TrilemmaError, UsageError
from trilemma.files.partials import held, partial_name, remove_stale
from trilemma.files.regular import file_inside
from trilemma.files.weights import Misfit, WeightsFile, allowance_for
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.condition import LABEL
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.features import Features
from trilemma.machine.device import usable_device
from trilemma.models.building import build as build
from trilemma.models.building import build_denoiser as build_denoiser
from trilemma.models.card_tables import WITHOUT_WEIGHTS
from trilemma.models.cascade import Cascade, Stage
from trilemma.models.parts import PARTS, part
from trilemma.models.reading import CARD, FORMAT, kind_of
from trilemma.models.reading import read_card as read_card
from trilemma.models.weights import loaded_from

_WEIGHTS = "weights.safetensors"


def load_model(path: Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Any:
    """Loads the model in a directory, in evaluation mode and without gradients; its kind is that of its card.

    Args:
        path: the directory.
        device: where to put it; CPU by default.
        dtype: dtype of the weights; float32 by default.

    Raises:
        ModelError: for a missing or damaged file, an unknown key or format, or weights that are not the ones named.
        PluginUnavailable: for a network or process that no plugin brings.
        TrilemmaError: for a device that cannot be used.
    """
    device, dtype = usable_device(device), dtype or torch.float32
    card = read_card(path)
    if kind_of(card) == "cascade":
        return _cascade(path, card, device, dtype)
    if "weights" not in card:
        return _built(path, card)
    # In a half dtype many an autoencoder overflows, and it is asked but once a sample.
    wide = torch.promote_types(dtype, torch.float32)
    autoencoder = _part(path, "latent", card["latent"], device, wide) if "latent" in card else None
    with _weights(path, card) as weights:
        with allowance_for(weights.header()):
            network = _built(path, card, autoencoder)
        tensors = weights.read(network)
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    network.card = card
    if isinstance(network, Denoiser):
        network.name_classes(LABEL, card["data"].get("classes", ()))
    network.to(device, dtype).eval().requires_grad_(False)
    if isinstance(network, Features):
        # Three times as fast on a CPU.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loaded_from(network, card["weights"]["sha256"])
    return network


def save_model(
    path: Path,
    card: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    parts: Mapping[str, Path] | None = None,
) -> None:
    """Writes a model directory whole or not at all; `weights.file` and every sha256 are filled in.

    Args:
        path: the directory; an existing model directory there is replaced.
        card: the tables of model.toml but for `format` and `weights`.
        tensors: the state dict, in the dtype in which it is to be stored; a cascade and an encoder have none.
        parts: directories of models that become folders in this one, by the name under which the card names them:
            the autoencoder of a latent model, the stages of a cascade.

    Raises:
        ModelError: where the disk refuses or `path` is something else; nothing is left behind.
        PluginUnavailable: for a part that is nowhere.
    """
    if path.exists() and not (path / CARD).is_file():
        raise ModelError(f"{path} exists and is no model directory; choose another place")
    parts = parts or {}
    card = _with_digests(path, card, parts)
    contents = {}
    if kind_of(card) not in WITHOUT_WEIGHTS:
        contents[_WEIGHTS] = save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        )
    digest = hashlib.sha256(contents[_WEIGHTS]).hexdigest() if contents else None
    contents[CARD] = card_text(card, digest).encode()
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path)
        partial.mkdir()
        with held(partial):
            for name, content in contents.items():
                with (partial / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            for name, part in parts.items():
                shutil.copytree(part, partial / name)
            shutil.rmtree(path, ignore_errors=True)
            partial.rename(path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ModelError(
            f"cannot write model {path}: {error.strerror or error}; free space or choose another place"
        ) from error


def card_text(card: Mapping[str, Any], sha256: str | None) -> str:
    """Returns the model.toml of a card whose weights have this sha256; None for a model without weights.

    Raises:
        UsageError: for a value that TOML or UTF-8 has no form for.
    """
    weights = {} if sha256 is None else {"weights": {"file": _WEIGHTS, "sha256": sha256}}
    try:
        text = tomli_w.dumps(_without_none({"format": FORMAT, **card, **weights}))
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


def _with_digests(path: Path, card: Mapping[str, Any], parts: Mapping[str, Path]) -> dict[str, Any]:
    """The card with the sha256 of every model that it names."""

    def named(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
        key = PARTS[name][0]
        found = part(path, name, table, parts.get(table[key]))
        if table.get("sha256") not in (None, found.sha256):
            raise ModelError(f"{found.path} is no longer the {key} that {path} was made with; restore it")
        return {**table, "sha256": found.sha256}

    found = dict(card)
    for name in PARTS & card.keys():
        content = card[name]
        if isinstance(content, list):
            found[name] = [named(name, table) for table in content]
        else:
            found[name] = named(name, content)
    return found


def _built(path: Path, card: Mapping[str, Any], autoencoder: Autoencoder | None = None) -> Any:
    """The untrained network of a card."""
    try:
        return build(card, 0, autoencoder)
    except UsageError as error:
        # The author of the card made the error, not the user.
        raise ModelError(f"{path / CARD}: {error}; restore the model") from error


def _cascade(path: Path, card: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Cascade:
    stages = [_stage(path, table, device, dtype) for table in card["stage"]]
    try:
        return Cascade(stages, card)
    except UsageError as error:
        raise ModelError(f"{path / CARD}: {error}; restore the model") from error


def _stage(path: Path, table: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Stage:
    model = _part(path, "stage", table, device, dtype)
    return Stage(model, **{key: value for key, value in table.items() if key not in ("model", "sha256")})


def _part(path: Path, name: str, table: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    """The model that a table of a card names, loaded; its sha256 is that of the table, where that states one."""
    found, stated = part(path, name, table), table.get("sha256")
    if stated not in (None, found.sha256):
        raise ModelError(
            f"{found.path} is another model than {path / CARD} was made with: sha256 {found.sha256[:12]}…, expected "
            f"{stated[:12]}…; restore the {PARTS[name][0]}"
        )
    return load_model(found.path, device, dtype)


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
            f"the weights in {path} do not fit its [{kind_of(card)}] table: {error}; restore the model"
        ) from error
    except TrilemmaError:
        raise
    except ValueError as error:
        raise ModelError(f"{file} is no safetensors file ({error}); restore the model") from error
