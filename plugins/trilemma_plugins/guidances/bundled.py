"""Trained classifiers by name or by directory."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from trilemma.construction import Constructing
from trilemma.errors import UsageError
from trilemma_plugins.guidances.network import NoisyDigitNetwork

BUNDLED = {"mnist": Path(__file__).parent / "weights"}


@cache
def load_classifier(model: str | Path, device: str = "cpu") -> NoisyDigitNetwork:
    """A bundled classifier, or one that `train_classifier` wrote into a directory, in evaluation mode.

    Raises:
        UsageError: for an unknown name, or a directory that holds no classifier.
    """
    folder = Path(model) if isinstance(model, Path) else BUNDLED.get(model, Path(model))
    try:
        card = tomllib.loads((folder / "classifier.toml").read_text(encoding="utf-8"))
        with Constructing():
            network = NoisyDigitNetwork().eval().requires_grad_(False)
        weights = load_file(folder / card["weights"]["file"])
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        known = ", ".join(BUNDLED)
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{str(model)!r} is no classifier ({reason}); give {known} or a directory of one"
        ) from error
    return network.to(device)
