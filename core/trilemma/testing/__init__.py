"""The conformance kit: what a plugin declares selects its checks, and a false declaration fails."""

from trilemma.testing.checks import (
    check_autoencoder,
    check_classifier,
    check_dataset,
    check_denoiser,
    check_encoder,
    check_features,
    check_guidance,
    check_kernel_backend,
    check_metric,
    check_objective,
    check_plugin,
    check_process,
    check_sampler,
    checks,
    run_checks,
)
from trilemma.testing.exact_processes import AngleProcess, PhaseProcess
from trilemma.testing.flow import reference_flow
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma.testing.guided import classifier_free_target, classifier_target
from trilemma.testing.mixture import GaussianMixtureDenoiser, point_mass
from trilemma.testing.outcome import Record
from trilemma.testing.parametrizing import generate_checks, parametrize_with_checks
from trilemma.testing.word_encoder import WordEncoder

__all__ = [
    "AngleProcess",
    "GaussianDenoiser",
    "GaussianMixtureDenoiser",
    "PhaseProcess",
    "Record",
    "WordEncoder",
    "check_autoencoder",
    "check_classifier",
    "check_dataset",
    "check_denoiser",
    "check_encoder",
    "check_features",
    "check_guidance",
    "check_kernel_backend",
    "check_metric",
    "check_objective",
    "check_plugin",
    "check_process",
    "check_sampler",
    "checks",
    "classifier_free_target",
    "classifier_target",
    "generate_checks",
    "parametrize_with_checks",
    "point_mass",
    "reference_flow",
    "run_checks",
]
