"""Starters of a new plugin: a small component of each kind that computes something true."""

from __future__ import annotations

from dataclasses import dataclass

from trilemma.errors import UsageError, nearest


@dataclass(frozen=True)
class Starter:
    """A component to start from; its source stands in templates/`kind`.

    Attributes:
        kind: as users ask for it, and the name of the module that holds the component.
        registered: kind under which the registry knows it.
        suffix: of the name of its class.
        summary: one line for listings.
        usage: a shell command that uses it, with $component for its name.
    """

    kind: str
    registered: str
    suffix: str
    summary: str
    usage: str


STARTERS: tuple[Starter, ...] = (
    Starter(
        "sampler",
        "sampler",
        "Sampler",
        "Euler's method in the angle between data and noise",
        "trilemma sample $model -n 16 --sampler $component --steps 20 --out digits.png",
    ),
    Starter(
        "process",
        "process",
        "Process",
        "A turn from data to noise at constant speed",
        'trilemma train RECIPE.toml    # whose [process] has spec = "$component"',
    ),
    Starter(
        "denoiser",
        "denoiser",
        "Denoiser",
        "The exact denoiser of a Gaussian a class, with mean and variance learned",
        'trilemma train RECIPE.toml    # whose [denoiser] has spec = "$component"',
    ),
    Starter(
        "autoencoder",
        "autoencoder",
        "Codes",
        "A linear map of patches of pixels to codes, and one back",
        'trilemma train RECIPE.toml    # whose [autoencoder] has spec = "$component"',
    ),
    Starter(
        "classifier",
        "classifier",
        "Bayes",
        "The exact classifier of noised Gaussians, with means and variance learned",
        'trilemma train RECIPE.toml    # whose [classifier] has spec = "$component"',
    ),
    Starter(
        "features",
        "features",
        "Features",
        "The activations of a hidden layer, with the logits that it learns by",
        'trilemma train RECIPE.toml    # whose [features] has spec = "$component"',
    ),
    Starter(
        "guidance",
        "guidance",
        "Guidance",
        "Classifier-free guidance that fades towards the data",
        "trilemma sample $model -n 16 --guidance $component:scale=3 --cond class=7 --out sevens.png",
    ),
    Starter(
        "encoder",
        "encoder",
        "Encoder",
        "The letters of a text, each by its own frequencies",
        'trilemma train RECIPE.toml    # whose [denoiser] is told a text by encoder = "$component"',
    ),
    Starter(
        "objective",
        "objective",
        "Loss",
        "Huber's loss of what the network predicts",
        'trilemma train RECIPE.toml    # whose [objective] has spec = "$component"',
    ),
    Starter(
        "metric",
        "metric",
        "Metric",
        "The distance between the means of the features",
        "trilemma eval $model -n 1000 --metric $component",
    ),
    Starter(
        "dataset",
        "dataset",
        "Data",
        "Grey squares, small or large, anywhere on black",
        'trilemma train RECIPE.toml    # whose [dataset] has spec = "$component"',
    ),
    Starter(
        "kernels",
        "kernel",
        "Backend",
        "The fused linear step in plain PyTorch",
        "trilemma bench kernels --op linear_step --quick",
    ),
)


def starter(kind: str) -> Starter:
    """Returns the starter of a kind.

    Raises:
        UsageError: for an unknown kind, with the nearest one.
    """
    for found in STARTERS:
        if kind in (found.kind, found.registered):
            return found
    known = [found.kind for found in STARTERS]
    near = nearest(kind, known)
    guess = f"did you mean {near[0]!r}? " if near else ""
    raise UsageError(f"unknown kind {kind!r}; {guess}there is a start for {', '.join(known)}")
