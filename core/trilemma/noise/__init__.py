"""Counter-based noise: sample i's numbers are the same alone, in a batch, in any order, on any worker."""

from trilemma.noise.normal import LATENT, PERTURB, PRIOR, STEP, reference_normal
from trilemma.noise.philox import philox
from trilemma.noise.source import InjectedNoise, KeyedNoise, NoiseSource, keyed_normal

__all__ = [
    "LATENT",
    "PERTURB",
    "PRIOR",
    "STEP",
    "InjectedNoise",
    "KeyedNoise",
    "NoiseSource",
    "keyed_normal",
    "philox",
    "reference_normal",
]
