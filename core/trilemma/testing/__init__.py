"""The conformance kit: what a plugin declares selects its checks, and a false declaration fails."""

from trilemma.testing.checks import check_sampler, checks, run_checks
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma.testing.result import Result

__all__ = ["GaussianDenoiser", "Result", "check_sampler", "checks", "run_checks"]
