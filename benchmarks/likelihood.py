"""Bits per dimension of a model on a learned schedule beside one on a fixed schedule, and the variance of their loss.

    trilemma train plugins/trilemma_plugins/models/recipes/vdm-mnist.toml --out runs/linear \\
        --set name=vdm-mnist-linear --set process.spec=vdm:schedule=linear
    python benchmarks/likelihood.py --learned vdm-mnist --fixed runs/linear/model --beside cld-mnist:first=0.003 mnist

writes OUT/likelihood.json and OUT/likelihood.md. Likelihoods are of the test images. The variance is that of the
diffusion term of single images, with t uniform, of the learned model on its own schedule and on the straight γ between
the same ends: one network, whose clock is γ, so that nothing but the interior of the schedule differs.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import trilemma
from trilemma.evaluate import Evaluator, evaluate_model
from trilemma.interfaces.denoiser import Denoiser

COLUMNS = ("bpd", "prior", "diffusion", "reconstruction", "interval")


def metrics(steps: list[int]) -> dict[str, str]:
    """Titles and specs of what is measured."""
    discrete = {f"bound, T = {count}": f"bpd:steps={count}" for count in steps}
    return {**discrete, "bound, T = ∞": "bpd"}


def likelihoods(model: Denoiser, options: argparse.Namespace) -> dict[str, Mapping[str, Any]]:
    rows: dict[str, Mapping[str, Any]] = {}
    for title, spec in metrics(options.steps).items():
        rows[title] = _measured(model, f"{spec}{',' if ':' in spec else ':'}draws={options.draws}", options.n)
    rows["bound, T = ∞, those of the ODE"] = _measured(
        model, f"bpd:draws={8 * options.draws}", options.n_flow
    )
    rows["ODE"] = _measured(model, f"bpd:method=flow,tolerance={options.tolerance}", options.n_flow)
    return rows


def _measured(model: Denoiser, spec: str, n: int) -> Mapping[str, Any]:
    record = evaluate_model(model, Evaluator("mnist", metrics=[spec]), n=n)
    return dict(next(iter(record["of_the_model"].values())))


def _named(given: str) -> Denoiser:
    return trilemma.load(given.partition(":")[0])


def _options(given: str) -> str:
    return given.partition(":")[1].replace(":", ",") + given.partition(":")[2]


def variances(model: Denoiser, n: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """Mean and variance of the diffusion term, nats a dimension, on the learned interior and on the straight one."""
    from trilemma_plugins.vdm.interior import Linear
    from trilemma_plugins.vdm.objective import VariationalBound

    data = Evaluator("mnist", metrics=["bpd"]).split("test")
    images = (data.images.float() / 127.5 - 1)[torch.arange(n) % len(data.images)]
    process: Any = model.process
    own = process.interior
    found = {}
    for name, interior in (("learned", own), ("straight", Linear())):
        process.interior = interior
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            losses = torch.cat([_losses(VariationalBound(), model, x, generator) for x in images.split(250)])
        found[name] = {
            "mean": float(losses.mean()),
            "interval": 1.96 * float(losses.std()) / math.sqrt(n),
            "variance": float(losses.var()),
            "interval_of_variance": 1.96 * float((losses - losses.mean()).square().std()) / math.sqrt(n),
        }
    process.interior = own
    return found


def _losses(objective: Any, model: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
    t = torch.rand(len(x), generator=generator, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=generator)
    return objective.diffusion(model, model, x, t, noise, {}).double() / x[0].numel()


def table(record: Mapping[str, Any]) -> str:
    lines = [
        "# Likelihoods",
        "",
        f"MNIST test images: {record['n']} of them for the bounds, {record['n_flow']} for the ODE, which is compared "
        "with the bound of the same images. Bits per dimension; ± is half the 95 % interval over images and draws. The "
        "ODE's dequantization is the noise that the process ends with. With the exact score both are one number; the "
        "bound is that of the reverse chain and bounds no flow of an inexact one, which may lie on either side of it.",
        "",
        "| model | | bits/dim | ± | prior | diffusion | reconstruction |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    beside = {f"`{name}`": {"bound": row} for name, row in record["beside"].items()}
    for name, rows in {**record["bits_per_dimension"], **beside}.items():
        for title, row in rows.items():
            parts = " | ".join(f"{row[k]:.4f}" if k in row else "" for k in COLUMNS[1:4])
            lines.append(f"| {name} | {title} | {row['bpd']:.4f} | {row['interval']:.4f} | {parts} |")
    lines += [
        "",
        f"Diffusion term of single images in nats a dimension, t uniform, {record['n_variance']} draws; the same "
        "network and ends of γ.",
        "",
        "| γ between its ends | mean | ± | variance | ± |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in record["variance"].items():
        lines.append(
            f"| {name} | {row['mean']:.4f} | {row['interval']:.4f} | {row['variance']:.4f} "
            f"| {row['interval_of_variance']:.4f} |"
        )
    ratio = record["variance"]["learned"]["variance"] / record["variance"]["straight"]["variance"]
    return "\n".join([*lines, "", f"The learned interior has {100 * (1 - ratio):.0f} % less variance.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learned", default="vdm-mnist", help="name or directory of the model")
    parser.add_argument("--fixed", required=True, help="name or directory of the one on a fixed schedule")
    parser.add_argument(
        "--beside",
        nargs="*",
        default=[],
        help="models of which the bound alone is measured, with options of bpd: cld-mnist:first=0.003",
    )
    parser.add_argument("-n", type=int, default=2000, help="images of the bounds")
    parser.add_argument("--draws", type=int, default=4, help="of time and noise an image")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[10, 100, 1000], help="T of the discrete bounds"
    )
    parser.add_argument("--n-flow", type=int, default=100, help="images of the ODE")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of the ODE")
    parser.add_argument("--n-variance", type=int, default=20_000, help="draws of the variance")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    started = time.monotonic()
    models = {"learned γ": trilemma.load(options.learned), "fixed γ": trilemma.load(options.fixed)}
    record = {
        "n": options.n,
        "n_flow": options.n_flow,
        "n_variance": options.n_variance,
        "models": {name: dict(model.card or {}) for name, model in models.items()},
        "bits_per_dimension": {name: likelihoods(model, options) for name, model in models.items()},
        "beside": {
            given: _measured(_named(given), f"bpd:draws={options.draws}{_options(given)}", options.n)
            for given in options.beside
        },
        "variance": variances(models["learned γ"], options.n_variance),
    }
    record |= {"threads": torch.get_num_threads(), "seconds": time.monotonic() - started}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "likelihood.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    (options.out / "likelihood.md").write_text(table(record))
    print(table(record))


if __name__ == "__main__":
    main()
