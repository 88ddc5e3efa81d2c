"""Every registered component that comes with Trilemma passes its checks; new ones are taken up by themselves."""

from __future__ import annotations

import pytest

from trilemma.registry import catalog
from trilemma.testing import run_checks
from trilemma.testing.checks import run_component

KINDS = (
    "process",
    "sampler",
    "guidance",
    "denoiser",
    "autoencoder",
    "classifier",
    "features",
    "encoder",
    "objective",
    "metric",
    "dataset",
    "kernel",
)
BUILT_IN = [
    (kind, component.address)
    for kind in KINDS
    for component in catalog().components(kind)
    if component.built_in
]
VARIANTS = [
    ("sampler", f"{component.address}:{variant}")
    for component in catalog().components("sampler")
    if component.built_in
    for variant in component.spec.variants
]


OTHERS = [  # options that change what is declared, in ways that no benchmark asks for
    ("sampler", spec)
    for spec in (
        "euler:s_churn=8",
        "euler-ancestral:eta=1.4",
        "heun:s_churn=8",
        "heun:s_churn=8,s_noise=1.1",
        "predictor-corrector:corrections=0",
        "predictor-corrector:corrections=3",
        "restart:restarts=0",
        "restart:pass_steps=3",
        "rk:pair=bosh3",
        "sa-solver:predictor=1,corrector=0",
        "sa-solver:rho_min=0.05,rho_max=1",
    )
]
OTHERS += [
    ("objective", spec)
    for spec in (
        "simple:weighting=edm,times=log-normal",
        "simple:weighting=min-snr",
        "simple:weighting=truncated-snr,stratified=false",
        "simple:target=x0,times=logit-normal",
        "simple:drop=0.3",
        "hsm:weighting=likelihood",
        "dsm:weighting=score,drop=0.3",
        "vlb:steps=10",
        "vlb:weighting=sigmoid,floor=0.1",
        "vlb:weighting=uniform,interior=bound",
    )
]
OTHERS += [("dataset", f"mixture2d:n={n}") for n in (1, 100)]
OTHERS += [("metric", spec) for spec in ("bpd:steps=20", "bpd:draws=3", "precision:k=5", "recall:k=1")]


@pytest.mark.parametrize(("kind", "spec"), [*BUILT_IN, *VARIANTS, *OTHERS], ids=lambda entry: str(entry))
def test_a_built_in_component_passes(kind, spec):
    failed = [f"{record.name}: {record.reason}" for record in run_component(kind, spec) if record.failed]
    assert not failed, "\n".join(failed)


def test_there_are_some_of_each_kind():
    assert {
        *(
            "process",
            "sampler",
            "guidance",
            "denoiser",
            "classifier",
            "features",
            "objective",
            "metric",
            "dataset",
        )
    } <= {kind for kind, _ in BUILT_IN}


def test_a_kind_without_checks_says_so():
    (record,) = run_checks("model", "mnist")
    assert record.status == "skipped"
