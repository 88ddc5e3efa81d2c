"""Trained classifiers by name or by directory."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from trilemma.interfaces.classifier import Classifier
from trilemma.models.loading import load_of

BUNDLED = {"mnist": Path(__file__).parent / "weights"}


@cache
def load_classifier(model: str | Path, device: str = "cpu") -> Classifier:
    """Loads a bundled classifier, a registered one, or one in a model directory, in evaluation mode.

    Raises:
        TrilemmaError: for an unknown name, or a directory that holds no classifier.
    """
    found = model if isinstance(model, Path) else BUNDLED.get(model, model)
    return load_of(Classifier, found, device)  # type: ignore[type-abstract]
