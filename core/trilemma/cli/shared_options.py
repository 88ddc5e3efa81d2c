"""Options that several commands have, each with its meaning, and what they stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilemma.cli.conditions import pairs, values
from trilemma.errors import UsageError

if TYPE_CHECKING:
    import torch

    from trilemma.evaluate import Evaluator

Stages = Annotated[
    list[str] | None,
    typer.Option(
        "--stage",
        metavar="NUMBER:OPTIONS",
        help="Of a cascade, options of one stage, such as 2:steps=10,sampler=unipc; repeatable.",
    ),
]
OtherConditions = Annotated[
    list[str] | None,
    typer.Option(
        "--cond", metavar="NAME=VALUE", help="Condition that the data set does not give; repeatable."
    ),
]
Dataset = Annotated[str | None, typer.Option(help="Data set [default: the model's].")]
FeatureNet = Annotated[
    str | None,
    typer.Option("--features", help="Feature network [default: the model's, else one for images]."),
]
Reference = Annotated[
    str | None,
    typer.Option(help="Split the samples are compared with: train or test [default: the model's, or train]."),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Split whose values samples are given [default: train, of pairs test], and that metrics of the model "
        "itself are measured on [default: test].",
    ),
]
Dtype = Annotated[str, typer.Option("--dtype", help="dtype of the network: float32 or bfloat16.")]
Threads = Annotated[int, typer.Option("--threads", help="CPU threads; 0 leaves torch's choice.", min=0)]

ForcePictures = Annotated[bool, typer.Option("--force", help="Replace pictures that are there.")]
ResumePictures = Annotated[
    bool, typer.Option("--resume", help="Leave pictures that are there, and make those that are missing.")
]


def dtype_of(text: str) -> torch.dtype:
    """Returns the dtype of a network by its name.

    Raises:
        UsageError: for another than float32 and bfloat16.
    """
    import torch

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if text not in kinds:
        raise UsageError(f"unknown dtype {text!r}; give float32 or bfloat16")
    return kinds[text]


def use_threads(count: int) -> None:
    """Sets the number of torch's CPU threads; 0 leaves it."""
    if count:
        import torch

        torch.set_num_threads(count)


def measured(
    model: str, cond: Sequence[str] | None, dtype: torch.dtype | None = None, **given: Any
) -> tuple[Any, Evaluator]:
    """Returns a model and what it is measured with, which has these values of conditions.

    Args:
        model: name or directory.
        cond: texts such as "level=0.3".
        dtype: of the network.
        given: what replaces values of the card, as in `trilemma.evaluate.load_measured`.

    Raises:
        TrilemmaError: as that does, and for a text of another form.
    """
    from trilemma.evaluate import load_measured

    told = pairs(cond or ())
    network, evaluator = load_measured(model, dtype=dtype, **given)
    if told:
        evaluator = dataclasses.replace(evaluator, cond={**evaluator.cond, **values(told, network)})
    return network, evaluator
