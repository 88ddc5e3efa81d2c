"""The exact bits of samples of every sampler, guidance and inversion, to compare before and after a change.

    python benchmarks/sample_hashes.py --out before.json
    python benchmarks/sample_hashes.py --out after.json --against before.json

Draws small samples of exact and of bundled models, one thread, fixed seeds, with the native kernels and with the
reference ones. A case records the sha256 of each tensor that it returned, its NFE and the sha256 of its provenance
without timings, versions and the choice of kernels; a case that was refused records the error's first line. With
--against each case that differs, is missing or is new is printed, and the exit status is 1 if there is any. Bits hold
for the machine that the file names, its torch and its instruction level alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import trilemma

Case = tuple[str, Callable[[], dict[str, Any]]]

# "auto" takes the native kernels wherever there is one: there is none of a state in float64.
BACKENDS = ("auto", "reference")
SHAPE = (1, 4, 4)
STEPS = (1, 2, 5, 20)
UNSTABLE = ("seconds", "images_per_second", "versions", "choice")
PARAMETERIZATIONS = ("x0", "eps", "v", "score", "flow")
OF_SEVERAL = ("x0", "eps", "score")
GRIDS = (
    *("uniform", "quadratic", "leading", "trailing", "linspace", "squares", "lambda", "sigma", "karras"),
    *("karras:rho=3", "sigmas:values=[8.0,2.0,0.5,0.1,0.02]", (0.9, 0.6, 0.4, 0.2, 0.05)),
)

# Processes of one component with the parameterization that each is drawn with.
ONE_COMPONENT = {
    "vp": "eps",
    "vp:schedule=cosine,T=20": "v",
    "vp:schedule=scaled_linear,T=8": "x0",
    "vp-continuous": "v",
    "vp-continuous:schedule=cosine": "eps",
    "vp-geometric": "eps",
    "vdm": "eps",
    "vdm:schedule=cosine": "v",
    "edm": "x0",
    "ve": "score",
    "sub-vp": "eps",
    "flow": "flow",
    "flow:shift=3": "v",
}
# "phase" is the exact process of the tests.
TWO_COMPONENTS = {"cld": "eps", "cld:schedule=linear": "score", "phase": "x0"}

# Options beside those of the registered variants.
OPTIONS = (
    *("ddim:eta=0.5", "ddpm:variance=large,clip=1.0", "dpm:order=1", "dpm:order=3", "dpm:r1=0.4"),
    *(f"deis:points={points}" for points in (1, 2, 4)),
    *(
        "deis:variable=rho",
        "deis:variable=t",
        "deis:prediction=x0",
        "lms:points=2",
        "lms:variable=log-rho,prediction=x0",
    ),
    *("dpmpp-2m:solver=heun", "dpmpp-2m:eta=0.5", "dpmpp-2m-sde:solver=heun", "dpmpp-2s:eta=0.5"),
    *("dpmpp-3m:curvature=0.5", "dpmpp-3m:eta=0.5", "dpmpp-3m-sde:eta=0.5", "dpmpp-2s-ancestral:eta=0.5"),
    *("euler:s_churn=2.0", "euler:s_churn=2.0,s_tmin=0.1,s_tmax=5.0,s_noise=1.01", "euler-ancestral:eta=0.5"),
    *("heun:s_churn=2.0", "predictor-corrector:corrections=2", "predictor-corrector:corrections=0"),
    *("restart:restarts=0", "restart:restarts=1,pass_steps=2", "restart:s_noise=1.01", "unipc:variant=bh1"),
    *("rk:pair=bosh3", "rk:tolerance=0.00001", "sa-solver:predictor=1,corrector=0", "unipc:p=1", "unipc:p=3"),
    *(
        "sa-solver:slope=half",
        "sa-solver:rho_min=0.1,rho_max=5.0",
        "gddim:prediction=eps",
        "sscs:last=denoise",
    ),
)

# Guidances by spec; those that need objects stand in `guidances`.
GUIDANCES = (
    *(
        "cfg:scale=1",
        "cfg:scale=3",
        "cfgpp:scale=0.6",
        "apg:scale=3",
        "apg:scale=3,eta=0.5,norm_threshold=1.0",
    ),
    *("cfg:scale=3+rescale", "cfg:scale=3+rescale:phi=0", "cfg:scale=3+interval:lo=0.2,hi=0.7"),
    *(
        "cfg:scale=3+schedule",
        "cfg:scale=3+schedule:first=1,last=0,shape=cosine",
        "apg:scale=3+interval:lo=0.3",
    ),
    *(
        "cfg:scale=3+interval:lo=0.2,hi=0.7+rescale:phi=0.5",
        "cfg:scale=2+cfg:scale=1.5",
        "cfg:scale=2+apg:scale=2",
    ),
    "cfgpp+interval:lo=0.2",
)
GUIDED_SAMPLERS = (
    *("ddim", "ddpm", "dpmpp-2m", "dpmpp-2s", "heun", "unipc", "euler-ancestral", "restart", "pndm", "rk"),
    *("gddim", "sscs", "euler-maruyama"),
)


def surface() -> SimpleNamespace:
    """Returns all that is used from below the top of `trilemma`, so that a move of it is mended here alone."""
    from trilemma.engine.noise import InjectedNoise
    from trilemma.guiding.sums import composed
    from trilemma.registry import catalog
    from trilemma.testing import GaussianMixtureDenoiser, PhaseProcess

    try:
        from trilemma import _C
    except ImportError:
        level = None
    else:
        level = _C.cpu_isa()
    return SimpleNamespace(
        Mixture=GaussianMixtureDenoiser,
        PhaseProcess=PhaseProcess,
        InjectedNoise=InjectedNoise,
        registered=lambda kind: [found for found in catalog().components(kind) if found.built_in],
        add=lambda *parts: composed(list(parts)),
        instruction_level=level,
    )


def machine() -> dict[str, Any]:
    """Returns all that the bits hold for."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": named[0] if named else platform.processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "instruction_level": {
            "native": surface().instruction_level,
            "torch": torch.backends.cpu.get_cpu_capability(),
        },
        "torch": str(torch.__version__),
        "trilemma": trilemma.__version__,
        "threads": torch.get_num_threads(),
    }


def bits(*tensors: Tensor) -> str:
    """Returns the sha256 of the dtype, the shape and the bytes of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def stable(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a provenance without what differs from run to run."""
    return {name: value for name, value in provenance.items() if name not in UNSTABLE}


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns standard normals of a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def images(count: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Returns images [count, C, H, W] in [−1, 1]."""
    return normal(11, count, *shape).clamp(-1, 1)


def half(shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Returns a mask [1, 1, H, W] that is 1 in the upper half."""
    mask = torch.zeros(1, 1, *shape[1:])
    mask[..., : shape[1] // 2, :] = 1
    return mask


class Follower:
    """A callback that hashes all that it is told."""

    def __init__(self) -> None:
        self._told = hashlib.sha256()

    def __call__(self, step: int, steps: int, t: float, state: Tensor) -> None:
        self._told.update(f"{step} {steps} {float(t).hex()} {bits(state)}".encode())

    @property
    def seen(self) -> str:
        return self._told.hexdigest()


def drawn(model: Callable[[], Any], follow: bool = False, **options: Any) -> dict[str, Any]:
    """Returns the record of a case of `trilemma.sample`, three samples unless the options say otherwise."""
    follower = Follower()
    if follow:
        options = {**options, "callback": follower, "trajectory": True}
    if not {"latent", "start", "indices"} & options.keys():
        options.setdefault("n", 3)
    made = trilemma.sample(model(), **options)
    followed = {}
    if follow:
        assert made.trajectory is not None
        assert made.times is not None
        times = [float(t).hex() for t in made.times]
        followed = {"trajectory": bits(made.trajectory), "times": times, "seen": follower.seen}
    return {"samples": bits(made.samples), **followed, "provenance": stable(made.provenance)}


def drawn_in_chunks(model: Callable[[], Any], **options: Any) -> dict[str, Any]:
    """Returns the record of a case of `trilemma.sample_chunks`."""
    chunks = trilemma.sample_chunks(model(), 3, batch_size=2, **options)
    found = [tensor for pair in chunks for tensor in pair]
    return {"samples": bits(*found), "provenance": stable(chunks.provenance)}


def inverted(model: Callable[[], Any], x: Tensor, follow: bool = False, **options: Any) -> dict[str, Any]:
    """Returns the record of a case of `trilemma.invert`."""
    follower = Follower()
    made = trilemma.invert(model(), x, callback=follower if follow else None, **options)
    residual = {} if made.residual is None else {"residual": bits(made.residual)}
    seen = {"seen": follower.seen} if follow else {}
    return {"samples": bits(made.samples), **residual, **seen, "provenance": stable(made.provenance)}


@cache
def process(spec: str) -> Any:
    """Returns the process of a spec; "phase" is that of the tests."""
    return surface().PhaseProcess() if spec == "phase" else trilemma.process(spec)


@cache
def exact(spec: str, parameterization: str, spread: float = 1.0) -> Any:
    """Returns the exact denoiser of a mixture of three classes whose means differ from pixel to pixel."""
    ramp = torch.linspace(-1, 1, 16, dtype=torch.float64).view(SHAPE)
    return surface().Mixture(
        process(spec),
        (ramp, -0.5 * ramp.flip(2), 0.2 + 0.3 * ramp.mT),
        tuple(spread * variance for variance in (0.04, 0.12, 0.06)),
        (0.3, 0.3, 0.4),
        parameterization,
        SHAPE,
    )


class ExactClassifier(nn.Module):
    """The classifier that knows the mixture."""

    def __init__(self, mixture: Any) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        known: Tensor = self.mixture.class_log_probabilities(z.double(), t)
        return known.to(z.dtype)


class Convolutions(nn.Module):
    """A small network of any origin, for `trilemma.wrap`."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        self.rise, self.fall = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.embed = nn.Embedding(classes, 8) if classes else None
        with torch.no_grad():
            for number, weight in enumerate(self.parameters()):
                weight.copy_(0.3 * normal(100 + number, *weight.shape))

    def forward(self, z: Tensor, clock: Tensor, class_labels: Tensor | None = None) -> Tensor:
        h = self.rise(z) + clock.to(z.dtype).tanh().view(-1, 1, 1, 1)
        if self.embed is not None and class_labels is not None:
            h = h + self.embed(class_labels)[:, :, None, None]
        answer: Tensor = self.fall(torch.relu(h))
        return answer


def wrapped(dtype: torch.dtype = torch.float32, clock: str = "t", classes: int = 0) -> Any:
    """Returns a wrapped network with weights in a dtype, whose last class is the null class."""
    labels = {"classes": classes, "null": classes} if classes else {}
    network = Convolutions(classes + 1 if classes else 0).to(dtype).eval()
    return trilemma.wrap(network, "vp", "eps", SHAPE, clock=clock, **labels)


@cache
def bundled(
    name: str, backend: str, fused: bool = True, dtype: torch.dtype | None = None, gain: float = 1.0
) -> Any:
    """Returns a bundled model, loaded once a backend; its weights times a gain are another network."""
    model = trilemma.load(name, dtype=dtype, fused=fused)
    if gain != 1:
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(gain)
    return model


def loaded(name: str, **options: Any) -> Callable[[], Any]:
    """Returns a function that returns a bundled model under the backend of the day."""
    return lambda: bundled(name, os.environ["TRILEMMA_BACKEND"], **options)


def variants() -> list[str]:
    """Returns the spec of every registered sampler with its defaults and of every variant that it declares."""
    return [
        f"{found.address}:{variant}" if variant else found.address
        for found in surface().registered("sampler")
        for variant in ("", *found.spec.variants)
    ]


@cache
def runs_on(spec: str, components: int) -> bool:
    """Returns whether a sampler declares to run on a process of so many components."""
    declared = trilemma.sampler(spec.partition(":")[0]).components
    return declared is None or components in declared


def home(spec: str) -> Callable[[], Any]:
    """Returns a function that returns an exact model which a sampler runs on."""
    return partial(exact, "vp", "v") if runs_on(spec, 1) else partial(exact, "cld", "eps")


def sampler_cases() -> Iterator[Case]:
    """Every sampler on every process and with every parameterization; what it does not run on it refuses once."""
    for spec in variants():
        for components, processes in ((1, ONE_COMPONENT), (2, TWO_COMPONENTS)):
            fits = runs_on(spec, components)
            for number, (name, parameterization) in enumerate(processes.items()):
                model = partial(exact, name, parameterization)
                for steps in STEPS if fits else (2,) if number == 0 else ():
                    yield (
                        f"sampler/{spec}/{name}/{parameterization}/steps={steps}",
                        partial(drawn, model, sampler=spec, steps=steps),
                    )
        for components, name, known in ((1, "vp", PARAMETERIZATIONS), (2, "phase", OF_SEVERAL)):
            for parameterization in known if runs_on(spec, components) else ():
                yield (
                    f"parameterization/{spec}/{name}/{parameterization}",
                    partial(drawn, partial(exact, name, parameterization), sampler=spec, steps=5),
                )


def option_cases() -> Iterator[Case]:
    """Options of samplers, clips and grids."""
    for spec in OPTIONS:
        for steps in (5, 12):
            yield f"options/{spec}/steps={steps}", partial(drawn, home(spec), sampler=spec, steps=steps)
    for spec in variants():
        clipped = f"{spec},clip=0.8" if ":" in spec else f"{spec}:clip=0.8"
        yield f"options/{clipped}", partial(drawn, home(spec), sampler=clipped, steps=5)
        if "grid=" in spec:
            continue
        for grid in GRIDS:
            yield f"grid/{spec}/{grid}", partial(on_grid, spec, grid)


def on_grid(spec: str, grid: Any) -> dict[str, Any]:
    """Returns the record of a sampler on a grid of five steps."""
    return drawn(home(spec), sampler=trilemma.sampler(spec, grid=grid), steps=5)


def request_cases() -> Iterator[Case]:
    """Every sampler with every option of a request, where it takes it."""
    region = {"known": images(2), "mask": half()}
    for spec in variants():
        stacked = (2, 4, 4) if not runs_on(spec, 1) else SHAPE
        injected = surface().InjectedNoise(normal(5, 8, *stacked), normal(6, 64, 8, *stacked))
        requests: dict[str, dict[str, Any]] = {
            "batch_size": {"batch_size": 2},
            "indices": {"indices": [7, 2, 5]},
            "deterministic": {"deterministic": True},
            "seed": {"seed": 2**63 + 5},
            "latent": {"latent": normal(7, 3, *stacked)},
            "latent-in-batches": {"latent": normal(7, 3, *stacked), "indices": [4, 0, 9], "batch_size": 2},
            "start": {"start": images(3)},
            "strength": {"start": images(2), "strength": 0.35, "indices": [3, 0, 1], "batch_size": 2},
            "known": region,
            "known-in-batches": {**region, "indices": [5, 1, 2], "batch_size": 2},
            "resample": {**region, "resample": 2},
            "jump": {**region, "resample": 3, "jump": 2},
            "known-start": {**region, "start": images(3), "strength": 0.7},
            "injected": {"noise": injected, "batch_size": 2},
            "injected-known": {**region, "noise": injected},
            "followed": {"follow": True},
            "followed-in-batches": {"follow": True, "batch_size": 2, "indices": [1, 0, 3]},
            "followed-known": {"follow": True, **region},
            "capture-off": {"capture": "off"},
        }
        for name, options in requests.items():
            yield f"request/{name}/{spec}", partial(drawn, home(spec), sampler=spec, steps=5, **options)
        yield f"request/chunks/{spec}", partial(drawn_in_chunks, home(spec), sampler=spec, steps=5)
        if runs_on(spec, 2) and runs_on(spec, 1):
            for name in ("batch_size", "indices", "deterministic", "followed", "start", "known"):
                yield (
                    f"request/{name}/{spec}/phase",
                    partial(drawn, partial(exact, "phase", "x0"), sampler=spec, steps=5, **requests[name]),
                )
    for spec in ("ddim", "ddpm", "dpmpp-2m"):
        for condition in (None, 1, [2, 0]):
            options = {"cond": {"class": condition}, "indices": [4, 1, 0]}
            yield (
                f"request/cond={condition}/{spec}",
                partial(drawn, home(spec), sampler=spec, steps=5, **options),
            )
    yield "request/defaults", partial(drawn, partial(exact, "vp", "v"))


def dtype_cases() -> Iterator[Case]:
    """States in every dtype, and networks in another than the state."""
    dtypes = ("float64", "float32", "bfloat16", "float16")
    for spec in variants():
        for state in dtypes:
            yield f"dtype/{spec}/{state}", partial(drawn, home(spec), sampler=spec, steps=5, dtype=state)
    for spec in ("ddim", "ddpm", "dpmpp-2m", "heun", "rk"):
        for own in dtypes:
            model = partial(wrapped, getattr(torch, own))
            for state in (None, *dtypes):
                yield (
                    f"dtype/{spec}/network={own}/state={state}",
                    partial(drawn, model, sampler=spec, steps=5, dtype=state),
                )
    for clock in ("t", "index", "log-snr", "sigma"):
        options = {"sampler": "ddim", "steps": 5, "cond": {"class": [0, 2]}, "guidance": "cfg:scale=3"}
        yield f"wrap/clock={clock}", partial(drawn, partial(wrapped, clock=clock, classes=3), **options)


def guidances(model: Callable[[], Any], weak: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    """Returns functions that return a guidance, by name: those of specs and those that need objects."""

    def auto(scale: float = 2.0) -> Any:
        return trilemma.guidance("autoguidance", model=weak(), scale=scale)

    def classified(label: Any = None) -> Any:
        return trilemma.guidance("classifier", model=ExactClassifier(model()), scale=1.5, label=label)

    def matching(sigma: float = 0.0) -> Any:
        return trilemma.guidance("moment-matching", known=images(2), mask=half(), sigma=sigma, iterations=3)

    def cfg() -> Any:
        return trilemma.guidance("cfg:scale=3")

    add = surface().add
    made: dict[str, Callable[[], Any]] = {spec: partial(str, spec) for spec in GUIDANCES}
    made |= {found.address: partial(str, found.address) for found in surface().registered("guidance")}
    return made | {
        "autoguidance(weak)": auto,
        "autoguidance(weak),scale=1": lambda: auto(1.0),
        "interval(autoguidance)": lambda: trilemma.guidance("interval:lo=0.2,hi=0.7", guidance=auto()),
        "rescale(autoguidance)": lambda: trilemma.guidance("rescale", guidance=auto()),
        "cfg+autoguidance(weak)": lambda: add(cfg(), auto()),
        "classifier(exact)": classified,
        "classifier(exact),label": lambda: classified([2, 0]),
        "cfg+classifier(exact)": lambda: add(cfg(), classified()),
        "moment-matching(half)": matching,
        "moment-matching(half),sigma": lambda: matching(0.1),
        "cfg+moment-matching(half)": lambda: add(cfg(), matching()),
        "schedule(cfg+autoguidance)": lambda: trilemma.guidance("schedule", guidance=add(cfg(), auto())),
    }


def guided(model: Callable[[], Any], guidance: Callable[[], Any], **options: Any) -> dict[str, Any]:
    """Returns the record of a case under a guidance that is made when it is drawn."""
    return drawn(model, guidance=guidance(), **options)


def guidance_cases() -> Iterator[Case]:
    """Every guidance on exact class-conditional mixtures."""
    for name, parameterization in (("vp", "v"), ("flow", "flow"), ("edm", "x0"), ("phase", "eps")):
        model, weak = partial(exact, name, parameterization), partial(exact, name, parameterization, 3.0)
        components = 2 if name == "phase" else 1
        for title, guidance in guidances(model, weak).items():
            for spec in GUIDED_SAMPLERS:
                if not runs_on(spec, components):
                    continue
                yield (
                    f"guidance/{title}/{spec}/{name}/{parameterization}",
                    partial(guided, model, guidance, sampler=spec, steps=4, cond={"class": 1}),
                )
            if name == "vp":
                options: dict[str, dict[str, Any]] = {
                    "classes": {"cond": {"class": [2, 0]}, "indices": [5, 0, 2], "batch_size": 2},
                    "null": {"cond": {"class": None}},
                    "float64": {"cond": {"class": 1}, "dtype": "float64"},
                    "bfloat16": {"cond": {"class": 1}, "dtype": "bfloat16"},
                    "known": {"cond": {"class": 1}, "known": images(2), "mask": half(), "resample": 2},
                    "followed": {"cond": {"class": 1}, "follow": True},
                }
                for how, given in options.items():
                    yield (
                        f"guidance/{title}/ddim/{how}",
                        partial(guided, model, guidance, sampler="ddim", steps=4, **given),
                    )


def inversion_cases() -> Iterator[Case]:
    """Every sampler backwards, solved and not, guided and not; those that cannot be inverted refuse."""
    for spec in variants():
        for refine in (0, 20):
            options = {"sampler": spec, "refine": refine, "steps": 4}
            yield f"invert/{spec}/refine={refine}", partial(inverted, home(spec), images(2), **options)
    for spec in ("ddim", "euler", "dpmpp-2m", "deis", "heun", "unipc", "rk"):
        for name, parameterization in (("flow", "flow"), ("edm", "x0"), ("vdm", "eps")):
            options = {"sampler": spec, "steps": 4}
            model = partial(exact, name, parameterization)
            yield f"invert/{spec}/{name}", partial(inverted, model, images(2), **options)
        for refine in (0, 20):
            for guidance in ("cfg:scale=1.5", "cfg:scale=1.5+interval:lo=0.3"):
                options = {"sampler": spec, "refine": refine, "steps": 4, "guidance": guidance}
                options |= {"cond": {"class": [1, 2]}, "follow": True}
                yield (
                    f"invert/{spec}/{guidance}/refine={refine}",
                    partial(inverted, home(spec), images(2), **options),
                )
        options = {"sampler": spec, "steps": 4, "dtype": "float64", "batch_size": 2, "indices": [4, 1, 2]}
        yield f"invert/{spec}/float64", partial(inverted, home(spec), images(3), **options)
    yield "invert/defaults", partial(inverted, partial(exact, "vp", "v"), images(1), tolerance=1e-3)


def bundled_cases() -> Iterator[Case]:
    """Bundled networks, fused and not, guided, inpainted and inverted."""
    digit = (1, 28, 28)
    one = ("ddim", "ddpm", "dpmpp-2m", "unipc", "heun", "rk:tolerance=0.05")
    two = ("gddim", "sscs", "euler-maruyama", "rk:tolerance=0.05")
    for name, specs in (("mnist", one), ("vdm-mnist", one), ("cld-mnist", two)):
        for spec in (None, *specs):
            yield (
                f"bundled/{name}/{spec or 'default'}",
                partial(drawn, loaded(name), sampler=spec, steps=3, n=2),
            )
        spec = specs[0]
        yield f"bundled/{name}/by-name", partial(drawn, partial(str, name), sampler=spec, steps=3, n=2)
        yield (
            f"bundled/{name}/not-fused",
            partial(drawn, loaded(name, fused=False), sampler=spec, steps=3, n=2),
        )
        yield (
            f"bundled/{name}/bfloat16",
            partial(drawn, loaded(name, dtype=torch.bfloat16), sampler=spec, steps=3, n=2),
        )
        for how, given in {
            "state-float64": {"dtype": "float64", "n": 2},
            "followed": {"follow": True, "n": 2},
            "indices": {"indices": [5, 0, 3], "batch_size": 2},
        }.items():
            yield f"bundled/{name}/{how}", partial(drawn, loaded(name), sampler=spec, steps=3, **given)
    few = (
        ("mnist-8", "ddim"),
        ("mnist-4", "ddim"),
        ("mnist-1", "ddim"),
        ("ddgan-mnist", "ddim:eta=1"),
        ("recovery-mnist", "recovery-langevin:chain=2,end=0.06,rule=curvature,step=1"),
    )
    for name, spec in few:
        yield f"bundled/{name}/{spec}", partial(drawn, loaded(name), sampler=spec, steps=3, n=2)
    mnist, weak = loaded("mnist"), loaded("mnist", gain=0.95)
    yield "bundled/mnist/cond", partial(drawn, mnist, sampler="ddim", steps=3, cond={"class": [7, 3]}, n=2)
    yield (
        "bundled/mnist/deterministic",
        partial(drawn, mnist, sampler="ddim", steps=1, deterministic=True, n=2),
    )
    for title, guidance in {
        **{spec: partial(str, spec) for spec in GUIDANCES},
        **{found.address: partial(str, found.address) for found in surface().registered("guidance")},
        "perturbed-attention:scale=0": lambda: "perturbed-attention:scale=0",
        "cfg+perturbed-attention": lambda: "cfg:scale=2+perturbed-attention:scale=0.5",
        "cfg+classifier": lambda: "cfg:scale=2+classifier:scale=0.5",
        "autoguidance:model=mnist": lambda: "autoguidance:model=mnist",
        "autoguidance(weak)": lambda: trilemma.guidance("autoguidance", model=weak()),
        "moment-matching(half)": lambda: trilemma.guidance(
            "moment-matching", known=images(1, digit), mask=half(digit), iterations=2
        ),
    }.items():
        for spec in ("ddim", "dpmpp-2m"):
            yield (
                f"bundled/mnist/{title}/{spec}",
                partial(guided, mnist, guidance, sampler=spec, steps=2, cond={"class": [7, 3]}, n=2),
            )
    region = {"known": images(1, digit), "mask": half(digit), "n": 2}
    for how, options in {
        "known": region,
        "resample": {**region, "resample": 2, "jump": 1},
        "start": {"start": images(2, digit), "strength": 0.7},
        "known-guided": {**region, "guidance": "cfg:scale=2", "cond": {"class": 4}},
    }.items():
        yield f"bundled/mnist/{how}", partial(drawn, mnist, sampler="ddim", steps=3, **options)
    for spec in ("ddim", "dpmpp-2m", "rk:tolerance=0.05"):
        for refine in (0, 2):
            options = {"sampler": spec, "refine": refine, "steps": 2}
            yield (
                f"bundled/mnist/invert/{spec}/refine={refine}",
                partial(inverted, mnist, images(1, digit), **options),
            )


def cases() -> Iterator[Case]:
    """Every case of one backend."""
    yield from sampler_cases()
    yield from option_cases()
    yield from request_cases()
    yield from dtype_cases()
    yield from guidance_cases()
    yield from inversion_cases()
    yield from bundled_cases()


def outcome(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns the record of a case, or the first line of the error that it ended with."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}


def record(only: str = "") -> dict[str, Any]:
    """Returns the hashes of every case whose name holds `only`, and every provenance once by its sha256."""
    found: dict[str, dict[str, Any]] = {}
    provenances: dict[str, dict[str, Any]] = {}
    for backend in BACKENDS:
        os.environ["TRILEMMA_BACKEND"] = backend
        for own_name, run in cases():
            name = f"{backend}/{own_name}"
            if only not in name:
                continue
            if name in found:
                raise SystemExit(f"two cases are named {name}")
            made = outcome(run)
            if "provenance" in made:
                said = made.pop("provenance")
                text = json.dumps(said, sort_keys=True, ensure_ascii=False)
                key = hashlib.sha256(text.encode()).hexdigest()
                provenances[key] = said
                made |= {"nfe": said["nfe"], "provenance": key}
            found[name] = made
    return {"machine": machine(), "cases": found, "provenances": provenances}


def differences(before: Mapping[str, Any], after: Mapping[str, Any], only: str = "") -> list[str]:
    """Returns a line for each case that differs, is missing or is new, and says what of it differs."""
    old = {name: case for name, case in before["cases"].items() if only in name}
    new = after["cases"]
    lines = [f"missing: {name}" for name in old if name not in new]
    lines += [f"new: {name}" for name in new if name not in old]
    for name in old:
        if name not in new or old[name] == new[name]:
            continue
        fields = [
            field for field in {**old[name], **new[name]} if old[name].get(field) != new[name].get(field)
        ]
        said = [_difference(field, old[name], new[name], before, after) for field in fields]
        lines.append(f"differs: {name}: {'; '.join(said)}")
    return lines


def _difference(
    field: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> str:
    if field in ("nfe", "error"):
        return f"{field} {old.get(field)!r} -> {new.get(field)!r}"
    if field == "provenance" and field in old and field in new:
        was, now = before["provenances"][old[field]], after["provenances"][new[field]]
        keys = [key for key in {**was, **now} if was.get(key) != now.get(key) or (key in was) != (key in now)]
        return f"provenance in {', '.join(keys)}"
    return field if field in old and field in new else f"{field} {'gone' if field in old else 'added'}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--against", type=Path, help="JSON file of an earlier run to compare with")
    parser.add_argument(
        "--only", default="", help="only the cases whose name holds this, such as auto/guidance/"
    )
    given = parser.parse_args()
    before = json.loads(given.against.read_text(encoding="utf-8")) if given.against else None
    torch.set_num_threads(1)
    found = record(given.only)
    given.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    refused = sum("error" in case for case in found["cases"].values())
    print(f"{len(found['cases'])} cases, {refused} of them refused, written to {given.out}")
    if before is None:
        return
    for name, now in found["machine"].items():
        if before["machine"].get(name) != now:
            print(f"note: {name} was {before['machine'].get(name)!r} and is {now!r}")
    lines = differences(before, found, given.only)
    print(*lines, f"{len(lines)} differences from {given.against}", sep="\n")
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
