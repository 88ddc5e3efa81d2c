"""The table of faults: what is broken, and the check that must fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from trilemma.testing.broken import others, samplers
from trilemma.testing.exact_processes import AngleProcess


@dataclass(frozen=True)
class Fault:
    """A broken component.

    Attributes:
        fault: in a few words.
        kind: of the component.
        component: the component.
        check: name of the check that must fail.
    """

    fault: str
    kind: str
    component: Any
    check: str


FAULTS: Final = (
    Fault("a first-order method that says 2", "sampler", samplers.ClaimsOrderTwo(), "order on a mixture"),
    Fault("the wrong previous time", "sampler", samplers.WrongPreviousTime(), "order on a Gaussian"),
    Fault("weights for even steps", "sampler", samplers.EvenSteps(), "order on a Gaussian"),
    Fault("all predictions kept", "sampler", samplers.LongMemory(), "memory does not grow with the steps"),
    Fault("a first history of zeros", "sampler", samplers.EmptyHistory(), "order on a Gaussian"),
    Fault(
        "a history that is not there", "sampler", samplers.UnfilledHistory(), "history is filled before it is read"
    ),
    Fault("noise at eta = 0", "sampler", samplers.NoiseAtEtaZero(), "noise as declared"),
    Fault("seeds of the batch", "sampler", samplers.BatchSeeds(), "same bits again and in every batch"),
    Fault("a step in place", "sampler", samplers.InPlace(), "inputs are left alone"),
    Fault("one evaluation off", "sampler", samplers.OneCallMore(), "plan pays its nfe"),
    Fault("a tolerance that is ignored", "sampler", samplers.IgnoresTolerance(), "tolerance is kept"),
    Fault("a division by sigma = 0", "sampler", samplers.DividesBySigma(), "plan is finite"),
    Fault("a strong order of 2 that is 1", "sampler", samplers.ClaimsStrongOrderTwo(), "strong order"),
    Fault("noise of the wrong sign", "sampler", samplers.AlternatingNoise(), "strong order"),
    Fault("too much noise by hand", "sampler", samplers.LoudByHand(), "marginals by Monte Carlo"),
    Fault("no sampler of an empty batch", "sampler", samplers.LooksAtTheFirst(), "an empty batch gives none"),
    Fault("no process of an empty batch", "process", others.NeedsATime(), "an empty batch gives none"),
    Fault("no guidance of an empty batch", "guidance", others.WholeBatch(), "an empty batch gives none"),
    Fault("a graph that breaks", "sampler", samplers.ClaimsOneGraph(), "compiles into one graph"),
    Fault("a network's broken graph", "denoiser", others.DecidesByValue(AngleProcess()), "compiles into one graph"),
    Fault("NaN swallowed", "denoiser", others.SwallowsNaN(AngleProcess()), "NaN stays in its sample"),
    Fault("strides forgotten", "denoiser", others.ReadsMemory(AngleProcess()), "states in any strides"),
    Fault("a state written to", "denoiser", others.WritesToItsState(AngleProcess()), "inputs are left alone"),
    Fault("one dtype only", "denoiser", others.OnlyFloat32(AngleProcess()), "float32, bfloat16 and float64"),
    Fault("half of the scale", "guidance", others.HalfTheScale(), "the exact target of its scale"),
    Fault(
        "no denoiser of an empty batch",
        "denoiser",
        others.LooksAtTheFirst(AngleProcess()),
        "an empty batch gives none",
    ),
    Fault("NaN hidden", "sampler", samplers.HidesNaN(), "NaN is named"),
    Fault("too much noise in a transition", "process", others.LoudTransition(), "transitions carry the moments"),
    Fault("a late inverse of log SNR", "process", others.LateInverse(), "time_of_log_snr inverts log_snr"),
    Fault("a prior of twice the noise", "process", others.WrongPrior(), "the prior has the law of t = 1"),
    Fault("the paper's w taken for s", "guidance", others.PaperScale(), "its neutral scale is no guidance"),
    Fault("weights that do not sum to 1", "guidance", others.Unbalanced(), "weights are one a branch and sum to 1"),
    Fault(
        "a mixed batch", "denoiser", others.BatchMean(AngleProcess()), "a state's answer does not depend on the batch"
    ),
    Fault(
        "answers in another dtype",
        "denoiser",
        others.WideAnswers(AngleProcess()),
        "answers in the shape and dtype of the data",
    ),
    Fault("normals that are too wide", "kernel", others.WrongNormals, "keyed_normal equals its definition"),
)  # fmt: skip
