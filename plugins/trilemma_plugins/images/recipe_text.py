"""A training recipe as commented TOML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import tomli_w

from trilemma.errors import printable, shortened
from trilemma.registry.spec import format_spec
from trilemma_plugins.images.network import Network
from trilemma_plugins.images.survey import Survey

_GRIDS, _GRID_STEPS = 4, 25
# Number of classes that are listed.
_LISTED = 8


@dataclass(frozen=True)
class Plan:
    """The content of a suggested recipe.

    Attributes:
        survey: of the images.
        name: of the model.
        network: which one.
        start: name or directory of the model to begin with.
        batch_size, steps: of the training.
        held_out: fraction of the images that the loss is measured on and that is not trained on.
        seconds: that a step takes.
    """

    survey: Survey
    name: str
    network: Network
    start: str | None
    batch_size: int
    held_out: float
    steps: int
    seconds: float

    # Grids and measurements take about as long as so many steps: a network evaluation is a third of one.
    EXTRA_STEPS: ClassVar[int] = _GRIDS * _GRID_STEPS // 3

    def timed(self, steps: int, seconds: float) -> Plan:
        """Returns the plan with another number of steps, which take so long each."""
        return replace(self, steps=steps, seconds=seconds)

    @property
    def total(self) -> float:
        """Seconds of the whole training."""
        return (self.steps + self.EXTRA_STEPS) * self.seconds


def recipe_text(plan: Plan) -> str:
    """Returns the recipe of a plan."""
    return "\n".join([*_head(plan), *_data(plan), *_network(plan), *_training(plan), *_samples(plan)])


def said_time(seconds: float) -> str:
    """Returns a time in words."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.{1 if seconds < 10 * length else 0}f} {unit}".replace(".0 ", " ")
    return f"{max(1, round(seconds))} seconds"


def _head(plan: Plan) -> list[str]:
    survey, side = plan.survey, plan.network.side
    sizes = ", ".join(f"{height}×{width} ({count})" for (height, width), count in survey.sizes.most_common(3))
    more = ", …" if len(survey.sizes) > 3 else ""
    return [
        f"# {survey.count} images, {'grey' if survey.grey else 'colour'}, height×width: {sizes}{more}.",
        f"# A step took {plan.seconds:.2g} s here, so that the whole takes about {said_time(plan.total)}.",
        "# More steps help more than anything else. Ctrl-C stops a training; the same command goes on.",
        _line("name", plan.name),
        _line("summary", printable(f"{survey.count} images of {survey.root.name}, {side}×{side}")),
        *(
            []
            if plan.start is None
            else ["# The weights that the training begins with.", _line("start", plan.start)]
        ),
        _line("steps", plan.steps),
        _line("batch_size", plan.batch_size),
        _line("seed", 0),
        "# The averaged weights are the ones that are written; nearer to 1 is smoother and wants more steps.",
        _line("ema", _ema(plan.steps)),
        _line("checkpoint_every", max(20, min(500, plan.steps // 10))),
        _line("log_every", max(1, min(50, plan.steps // 20))),
        "",
    ]


def _data(plan: Plan) -> list[str]:
    root, side = str(plan.survey.root), plan.network.side
    mode = {1: "L", 3: "RGB"}[plan.network.channels]
    flip = "# image and its mirror image; take it out where left and right mean something, as in letters and digits."
    options = {"root": root, "size": side, "mode": mode, "flip": True}
    if plan.survey.captions:
        flip = "# image and its mirror image; it is left out here, as captions may say left and right."
        del options["flip"]
    lines = [
        "[dataset]",
        "# The shorter side is resized to `size` pixels, the middle cropped; mode=L is grey, RGB colour. flip: every",
        flip,
        *_columns(plan),
        _line("spec", format_spec("images", options)),
        "",
    ]
    if plan.held_out:
        lines += [
            "[validation]",
            "# The loss on a part that is not trained on, as validation_loss in log.jsonl: where it rises again, the",
            "# network begins to know the images by heart.",
            _line("fraction", plan.held_out),
            _line("every", max(10, plan.steps // 20)),
            "",
        ]
    return lines


def _columns(plan: Plan) -> list[str]:
    """Names the columns of the metadata, and says how the network is told them."""
    rules = plan.survey.columns
    if not rules:
        return []
    named = ", ".join(f"{name} ({rule.kind})" for name, rule in list(rules.items())[:_LISTED])
    more = ", …" if len(rules) > _LISTED else ""
    lines = [
        f"# Columns of the metadata: {shortened(printable(named), 80)}{more}. label=COLUMN makes one the class."
    ]
    if plan.survey.captions and "conditions" not in plan.network.options:
        lines.append(
            '# Captions are not told to the network: pip install "trilemma[text]", and write the recipe again.'
        )
    return lines


def _network(plan: Plan) -> list[str]:
    network, classes = plan.network, plan.survey.classes
    lines = [
        *("[process]", _line("spec", network.process), ""),
        *("[denoiser]", _line("spec", network.spec), _line("parameterization", network.parameterization), ""),
        "[denoiser.options]",
    ]
    if "channels" in network.options:
        lines.append("# Width of each level; twice as wide is better and takes up to four times as long.")
    lines += [_line(key, value) for key, value in network.options.items() if key != "classes"]
    if network.options.get("classes"):
        named = ", ".join(classes[:_LISTED]) + (", …" if len(classes) > _LISTED else "")
        lines += [
            f"# By label from 0: {shortened(printable(named), 100)}",
            _line("classes", network.options["classes"]),
        ]
    return [*lines, ""]


def _training(plan: Plan) -> list[str]:
    lines = ["[objective]"]
    if "conditions" in plan.network.options:
        lines.append("# The caption is left out one time in ten, for classifier-free guidance.")
        lines.append(_line("spec", "simple:drop=0.1"))
    elif plan.network.options.get("classes"):
        lines.append("# The class is left out one time in ten, for classifier-free guidance.")
        lines.append(_line("spec", "simple:drop=0.1"))
    else:
        lines.append(_line("spec", "simple"))
    return [
        *(*lines, ""),
        *("[optimizer]", _line("lr", 1e-3 if plan.start is None else 1e-4)),
        *(_line("warmup", min(500, plan.steps // 10)), ""),
    ]


def _samples(plan: Plan) -> list[str]:
    classes = int(plan.network.options.get("classes", 0))
    return [
        "[samples]",
        "# Pictures of how far it is, in samples/ of the run.",
        _line("every", max(10, plan.steps // _GRIDS)),
        _line("n", 64),
        _line("sampler", "ddim:clip=1.0"),
        _line("steps", _GRID_STEPS),
        *_asked(plan, classes),
        *("", "[sampling]", _line("sampler", "ddim:clip=1.0"), ""),
    ]


def _asked(plan: Plan, classes: int) -> list[str]:
    """The conditions of the pictures: every class, and some captions of the training images."""
    values: dict[str, Any] = {"class": list(range(min(classes, 64)))} if classes else {}
    if "conditions" in plan.network.options and plan.start is None:
        values["text"] = list(plan.survey.captions)
    return [_line("cond", values)] if values else []


def _ema(steps: int) -> float:
    for least, decay in ((3000, 0.999), (1000, 0.995), (300, 0.99)):
        if steps >= least:
            return decay
    return 0.9


def _line(key: str, value: Any) -> str:
    return f"{key} = {_toml(value)}"


def _toml(value: Any) -> str:
    """A value of TOML on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_line(key, entry) for key, entry in value.items()) + " }"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_toml, value))}]"
    return tomli_w.dumps({"x": value}).strip().removeprefix("x = ")
