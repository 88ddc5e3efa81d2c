"""The table of faults: what is broken, and the check that must fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from trilemma.testing.broken import (
    codes,
    datasets,
    encoders,
    labels,
    listeners,
    metrics,
    objectives,
    others,
    samplers,
    updates,
)
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
    Fault("a late start", "sampler", samplers.LateStart(), "nfe and times of the network's calls"),
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
    Fault(
        "a condition that is ignored", "denoiser", listeners.Deaf(AngleProcess()), "conditions are heard after training"
    ),
    Fault(
        "a null that is a class",
        "denoiser",
        listeners.DeafToTheNull(AngleProcess()),
        "conditions are heard after training",
    ),
    Fault(
        "padding that is read", "denoiser", listeners.AttendsToPadding(AngleProcess()), "padding a text changes no bit"
    ),
    Fault(
        "a mean over padding", "denoiser", listeners.DividesByTheLength(AngleProcess()), "padding a text changes no bit"
    ),
    Fault(
        "the batch's longest text",
        "denoiser",
        listeners.MeasuresTheBatch(AngleProcess()),
        "texts of mixed lengths, each as alone",
    ),
    Fault(
        "a number that is not given",
        "denoiser",
        listeners.ReadsTheAbsent(AngleProcess()),
        "an absent value says nothing",
    ),
    Fault("two nulls", "denoiser", listeners.TwoNulls(AngleProcess()), "the null of training is that of sampling"),
    Fault(
        "a null of NaN",
        "denoiser",
        listeners.InfiniteNull(AngleProcess()),
        "conditions are taken, with and without null",
    ),
    Fault("narrow embeddings", "encoder", encoders.NarrowEmbeddings(), "embeddings are float32 of its width"),
    Fault(
        "padding marked as tokens", "encoder", encoders.MarksPadding(), "its mask marks the tokens, zeros behind them"
    ),
    Fault(
        "a text without a token", "encoder", encoders.LeavesNoToken(), "its mask marks the tokens, zeros behind them"
    ),
    Fault("a mean of the batch", "encoder", encoders.CentresTheBatch(), "a text does not depend on its batch"),
    Fault(
        "an encoder that sees padding", "encoder", encoders.AttendsToItsPadding(), "a text does not depend on its batch"
    ),
    Fault("dropout left on", "encoder", encoders.DropsWords(), "encoding repeats"),
    Fault("torch seeded by an encoder", "encoder", encoders.DrawsGlobally(), "no global generator is drawn from"),
    Fault("texts that are alike", "encoder", encoders.HearsLengths(), "other texts have other embeddings"),
    Fault("a vector of the padding", "encoder", encoders.PoolsPadding(), "one vector a text, whatever its padding"),
    Fault("an identity that changes", "encoder", encoders.AnotherIdentity(), "its identity stays"),
    Fault("no embeddings of no text", "encoder", encoders.NeedsAText(), "an empty batch gives none"),
    Fault("NaN in a long text", "encoder", encoders.NaNInTheLong(), "a text of any length"),
    Fault("normals that are too wide", "kernel", others.WrongNormals, "keyed_normal equals its definition"),
    Fault("a sum over the batch", "objective", objectives.SumOfTheBatch(), "the loss is a mean over the batch"),
    Fault("a loss an example", "objective", objectives.LossOfEach(), "the loss is one finite number"),
    Fault("a network cut off", "objective", objectives.Detached(), "gradients reach the network"),
    Fault("a wrapper that is passed by", "objective", objectives.PastTheNetwork(), "the network it is given is called"),
    Fault("conditions that are forgotten", "objective", objectives.Unconditional(), "conditions reach the network"),
    Fault("another target", "objective", objectives.OtherTarget(), "the exact denoiser has the least loss"),
    Fault("data written to", "objective", objectives.ScalesItsData(), "inputs are left alone"),
    Fault("a loss in one dtype only", "objective", objectives.OnlySingle(), "float32, bfloat16 and float64"),
    Fault("global noise in a loss", "objective", objectives.GlobalNoise(), "no global generator is drawn from"),
    Fault("an unasked generator", "objective", objectives.GeneratorOfItsOwn(), "the generator decides the loss"),
    Fault("another validation loss", "objective", objectives.WeighsByItsGradient(), "without gradients it is the same"),
    Fault("a part that is forgotten", "objective", updates.ForgottenPart(), "parts and updates fit together"),
    Fault("a part that begins by chance", "objective", updates.OtherBeginning(), "parts begin alike again"),
    Fault("a part that hears nothing", "objective", updates.DeafPart(), "every part that should learn moves"),
    Fault("a part moved by hand", "objective", updates.MovesByHand(), "no other part moves"),
    Fault("a generator that is filled", "objective", updates.FillsTheGenerator(), "gradients stay in their parts"),
    Fault("a quotient by nothing", "objective", updates.InfiniteGap(), "losses and what they log are finite numbers"),
    Fault("a bound of nothing", "objective", updates.BoundsNothing(), "losses and what they log are finite numbers"),
    Fault("an update's global noise", "objective", updates.DrawsElsewhere(), "the generator is the only randomness"),
    Fault("examples written to", "objective", updates.ScalesItsExamples(), "data are left alone"),
    Fault("a lost penalty", "objective", updates.NoPenaltyInValidation(), "a validation gives the same losses"),
    Fault("pixels that are no bytes", "dataset", datasets.Floats, "images are bytes of one shape"),
    Fault("labels from 1", "dataset", datasets.LabelsFromOne, "labels are places of the classes"),
    Fault("views that do not divide", "dataset", datasets.UnevenViews, "length and views"),
    Fault("the order of files", "dataset", datasets.Sorting, "indices in any order, any number of times"),
    Fault("no image of an empty batch", "dataset", datasets.NeedsOne, "an empty batch gives none"),
    Fault("images beyond the last", "dataset", datasets.GoesRound, "an index past the end is refused"),
    Fault("crops by chance", "dataset", datasets.CropsByChance, "reading repeats"),
    Fault("memory lent out", "dataset", datasets.LendsItsMemory, "what is read is the reader's own"),
    Fault("half of the range", "dataset", datasets.HalfTheRange, "a batch is scaled to [-1, 1]"),
    Fault("captions for half", "dataset", datasets.ShortColumn, "conditions have a value for each example"),
    Fault("captions in order", "dataset", datasets.CaptionsInOrder, "a batch has the values of its examples"),
    Fault("captions forgotten", "dataset", datasets.ForgetsItsCaptions, "the fingerprint knows the columns"),
    Fault("a damaged image", "dataset", datasets.Damaged, "all of it can be read"),
    Fault("torch seeded by a data set", "dataset", datasets.SeedsTorch, "no global generator is drawn from"),
    Fault("another order each time", "dataset", datasets.AnotherEachTime, "built again it is the same"),
    Fault("one split for both", "dataset", datasets.OneSplit, "splits are apart"),
    Fault("training images in the test", "dataset", datasets.SharedImages, "splits are apart"),
    Fault("a distance that is better when larger", "metric", metrics.HigherIsBetter(), "worse samples are worse"),
    Fault("a value as a tensor", "metric", metrics.AsTensor(), "its value is a number or None"),
    Fault("a mean of batches", "metric", metrics.MeanOfBatches(), "any chunks give the same"),
    Fault("the first images alone", "metric", metrics.FirstImages(), "the order of the images does not matter"),
    Fault("a reference known by heart", "metric", metrics.KnowsItsReference(), "real images are near the best"),
    Fault("one accumulator for all", "metric", metrics.OneForAll(), "accumulators are apart"),
    Fault("labels that are needed", "metric", metrics.NeedsLogits(), "images without labels and logits"),
    Fault("NaN of nothing", "metric", metrics.OfNothing(), "too few images are named"),
    Fault("NaN taken for 0", "metric", metrics.HidesNaNs(), "NaN is named"),
    Fault("features written to", "metric", metrics.CentresInPlace(), "observations are left alone"),
    Fault("a metric's global draw", "metric", metrics.Subsamples(), "no global generator is drawn from"),
    Fault("a model's number that is none", "metric", metrics.NoNumber(), "it finds numbers by name"),
    Fault("a seed that is not asked", "metric", metrics.SeedOfItsOwn(), "the seed decides what it finds"),
    Fault("a sum over batches", "metric", metrics.SumsBatches(), "batches of any size, but for the draws"),
    Fault("an error that is better when larger", "metric", metrics.LargerIsBetter(), "a worse model is worse"),
    Fault("a model's global draw", "metric", metrics.GlobalDraws(), "no global generator is drawn from"),
    Fault("images written to", "metric", metrics.ScalesImages(), "images and labels are left alone"),
    Fault("one number of all pairs", "metric", metrics.PairsInOne(), "it gives one finite number a pair"),
    Fault("infinite for equal pairs", "metric", metrics.InfinitePairs(), "it gives one finite number a pair"),
    Fault(
        "pairs by their batch",
        "metric",
        metrics.PairsByTheirBatch(),
        "a pair's number does not depend on its batch",
    ),
    Fault("similar pairs are worse", "metric", metrics.SimilarIsWorse(), "worse samples are worse"),
    Fault("pairs written to", "metric", metrics.ScalesPairs(), "images are left alone"),
    Fault("wide features", "metric", metrics.DoubleFeatures(), "features are float32, finite, one row an image"),
    Fault("batch features", "metric", metrics.CentredFeatures(), "an image's features do not depend on its batch"),
    Fault("the same features of all", "metric", metrics.ConstantFeatures(), "other images have other features"),
    Fault("shapes that it does not take", "metric", metrics.AnyShape(), "other shapes are refused"),
    Fault("no features of an empty batch", "metric", metrics.NeedsAnImage(), "an empty batch gives none"),
    Fault("labels that are lost", "metric", metrics.LosesLabels(), "labels go through, images are left alone"),
    Fault("a feature network's global draw", "metric", metrics.NoisyFeatures(), "no global generator is drawn from"),
    Fault("codes of another shape", "autoencoder", codes.OtherShape(), "codes and images have the shapes that it says"),
    Fault(
        "codes of the batch", "autoencoder", codes.CentresTheBatch(), "an image's code does not depend on its batch"
    ),
    Fault("encoded images written to", "autoencoder", codes.ClampsItsImages(), "images are left alone"),
    Fault("a code of NaN", "autoencoder", codes.NaNIsZero(), "NaN stays in its image"),
    Fault("no codes of an empty batch", "autoencoder", codes.LoudestImage(), "an empty batch gives none"),
    Fault("codes in one dtype only", "autoencoder", codes.SingleCodes(), "float32, bfloat16 and float64"),
    Fault("a weight that learns nothing", "autoencoder", codes.IdleWeight(), "gradients reach every weight"),
    Fault("codes that are drawn", "autoencoder", codes.DrawsItsCodes(), "no global generator is drawn from"),
    Fault("log-variances without end", "autoencoder", codes.Unbounded(), "log-variances are bounded"),
    Fault(
        "normalised by one batch", "autoencoder", codes.FirstBatch(), "normalised codes have mean 0 and deviation 1"
    ),
    Fault("a scale that is not saved", "autoencoder", codes.LostScale(), "the normalisation is part of the weights"),
    Fault(
        "a scale that is forgotten",
        "autoencoder",
        codes.ForgetsTheScale(),
        "an image comes back from its normalised code",
    ),
    Fault("a logit too many", "classifier", labels.OneTooMany(), "logits are finite, one a class"),
    Fault("logits of the batch", "classifier", labels.CentredLogits(), "a state's logits do not depend on its batch"),
    Fault("classified states written to", "classifier", labels.ClampsItsStates(), "states are left alone"),
    Fault("no logits of an empty batch", "classifier", labels.NoState(), "an empty batch gives none"),
    Fault("a time that is not heard", "classifier", labels.TimelessClasses(), "the time is heard"),
    Fault("a state cut off", "classifier", labels.NoGradient(), "gradients reach the state"),
    Fault("a weight that is not saved", "classifier", labels.HiddenScale(), "weights survive a save"),
    Fault("logits by chance", "classifier", labels.DrawnLogits(), "no global generator is drawn from"),
    Fault(
        "logits without names",
        "features",
        labels.NamelessLogits(),
        "features and logits have the shapes that it says",
    ),
    Fault("a layer that learns nothing", "features", labels.IdleLayer(), "gradients reach every weight"),
)  # fmt: skip
