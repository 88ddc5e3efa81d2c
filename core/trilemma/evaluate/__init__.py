"""Evaluation: metrics of a model's samples against a data set, in the space of a feature network."""

from trilemma.evaluate.evaluation import check_request, evaluate, evaluate_model, load_measured, untrained
from trilemma.evaluate.evaluator import METRICS, Evaluator
from trilemma.evaluate.sweep import Swept, parse_swept, sweep
from trilemma.interfaces.metric import (
    Accumulator,
    FeatureNetwork,
    Metric,
    ModelMetric,
    Observation,
    PairMetric,
)

__all__ = [
    "METRICS",
    "Accumulator",
    "Evaluator",
    "FeatureNetwork",
    "Metric",
    "ModelMetric",
    "Observation",
    "PairMetric",
    "Swept",
    "check_request",
    "evaluate",
    "evaluate_model",
    "load_measured",
    "parse_swept",
    "sweep",
    "untrained",
]
