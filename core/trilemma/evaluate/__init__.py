"""Evaluation: metrics of a model's samples against a data set, in the space of a feature network."""

from trilemma.evaluate.evaluation import evaluate, untrained
from trilemma.evaluate.evaluator import METRICS, Evaluator
from trilemma.evaluate.metric import Accumulator, FeatureNetwork, Metric, Observation

__all__ = [
    "METRICS",
    "Accumulator",
    "Evaluator",
    "FeatureNetwork",
    "Metric",
    "Observation",
    "evaluate",
    "untrained",
]
