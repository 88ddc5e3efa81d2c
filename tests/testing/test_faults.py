"""Every classic fault is caught by the check that is there for it, and what is right passes that check."""

from __future__ import annotations

from typing import ClassVar

import pytest

from trilemma.ops import keyed_normal
from trilemma.testing import checks, run_checks
from trilemma.testing.broken import FAULTS
from trilemma.testing.broken.codes import RightCodes
from trilemma.testing.broken.datasets import RightData
from trilemma.testing.broken.encoders import RightEncoder
from trilemma.testing.broken.labels import RightClasses, RightNetwork
from trilemma.testing.broken.listeners import RightListener
from trilemma.testing.broken.metrics import RightFeatures, RightMetric, RightModelMetric, RightPairMetric
from trilemma.testing.broken.objectives import RightLoss
from trilemma.testing.broken.samplers import (
    OneGraph,
    Right,
    RightByHand,
    RightWithNoise,
    RightWithNoiseByHand,
)
from trilemma.testing.broken.updates import RightPair
from trilemma.testing.exact_processes import AngleProcess
from trilemma.testing.local import LOCAL
from trilemma.testing.mixture import GaussianMixtureDenoiser


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.fault)
def test_a_fault_is_caught_by_its_check(fault):
    with pytest.raises(AssertionError):
        dict(checks(fault.kind, fault.component))[fault.check]()


class RightNormals:
    operators: ClassVar = {"keyed_normal": keyed_normal}


@pytest.mark.parametrize(
    ("kind", "component"),
    [
        ("sampler", Right()),
        ("sampler", RightByHand()),
        ("sampler", OneGraph()),
        ("sampler", RightWithNoise()),
        ("sampler", RightWithNoiseByHand()),
        *(("process", process) for process in LOCAL),
        ("guidance", "cfg"),
        ("denoiser", GaussianMixtureDenoiser(AngleProcess())),
        ("kernel", RightNormals),
        ("denoiser", RightListener(AngleProcess())),
        ("encoder", RightEncoder()),
        ("objective", RightLoss()),
        ("objective", RightPair()),
        ("dataset", RightData),
        ("dataset", RightData()),
        ("autoencoder", RightCodes()),
        ("classifier", RightClasses()),
        ("features", RightNetwork()),
        ("metric", RightMetric()),
        ("metric", RightModelMetric()),
        ("metric", RightPairMetric()),
        ("metric", RightFeatures()),
    ],
    ids=lambda entry: entry if isinstance(entry, str) else type(entry).__name__,
)
def test_what_is_right_passes(kind, component):
    assert [record for record in run_checks(kind, component) if record.failed] == []


def test_a_failure_that_was_expected_is_none_and_a_pass_is_one():
    expected = {"order on a mixture": "known", "plan is finite": "not so", "no such check": "a mistake"}
    found = {record.name: record for record in run_checks("sampler", FAULTS[0].component, expected)}
    assert found["order on a mixture"].status == "xfail"
    assert not found["order on a mixture"].failed
    assert found["plan is finite"].status == "xpass"
    assert found["plan is finite"].failed
    assert found["no such check"].failed
