"""Trained classifiers by name or by directory."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from trilemma.errors import UsageError
from trilemma.files.regular import file_inside
from trilemma.files.toml import read_toml
from trilemma.files.weights import WeightsFile
from trilemma.models.construction import Constructing
from trilemma_plugins.guidances.network import NoisyDigitNetwork

BUNDLED = {"mnist": Path(__file__).parent / "weights"}


@cache
def load_classifier(model: str | Path, device: str = "cpu") -> NoisyDigitNetwork:
    """Loads a bundled classifier, or one that `train_classifier` wrote into a directory, in evaluation mode.

    Raises:
        UsageError: for an unknown name, or a directory that holds no classifier.
    """
    folder = Path(model) if isinstance(model, Path) else BUNDLED.get(model, Path(model))
    try:
        card = read_toml(folder / "classifier.toml")
        with Constructing():
            network = NoisyDigitNetwork().eval().requires_grad_(False)
        with WeightsFile(file_inside(folder, card["weights"]["file"])) as weights:
            if weights.sha256() != card["weights"]["sha256"]:
                raise ValueError("the sha256 of its weights is not the one its card states")
            tensors = weights.read(network)
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (OSError, KeyError, TypeError, ValueError) as error:
        known = ", ".join(BUNDLED)
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UsageError(
            f"{str(model)!r} is no classifier ({reason}); give {known} or a directory of one"
        ) from error
    return network.to(device)
