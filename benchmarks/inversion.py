"""There and back of test digits with the bundled model: what `refine` buys, as the table of docs/sampling.md.

python benchmarks/inversion.py --images 8
"""

from __future__ import annotations

import argparse
import warnings

import torch

import trilemma
from trilemma import lookup


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--images", type=int, default=8)
    count = arguments.parse_args().images
    model = trilemma.load("mnist")
    x, values = lookup.dataset("mnist:split=test").batch(torch.arange(count))
    cond = {"class": values["class"].tolist()}
    print("| steps | refine | NFE up | largest residual | there and back, root mean square | largest error |")
    print("|---:|---:|---:|---:|---:|---:|")
    for steps in (10, 20, 50):
        for refine in (0, 1, 3, 10):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                up = trilemma.invert(model, x, steps=steps, refine=refine, cond=cond)
            back = trilemma.sample(model, latent=up.samples, sampler="ddim", steps=steps, cond=cond).samples
            error = back - x
            residual = up.provenance["inversion"]["residual"]
            print(
                f"| {steps} | {refine} | {up.provenance['nfe']} | "
                f"{'not known' if residual is None else f'{residual:.3f}'} | "
                f"{float(error.square().mean().sqrt()):.4f} | {float(error.abs().max()):.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
