"""What the base class derives from the moments alone, on a process whose closed forms are known."""

import math

import pytest
import torch

from trilemma.interfaces.process import Process


class OrnsteinUhlenbeck(Process):
    """dz = −z dt + √2 dW: α = e^{−t}, σ² = 1 − e^{−2t}."""

    def moments(self, t):
        return torch.exp(-t)[..., None], -torch.expm1(-2 * t)[..., None, None]


class Doubled(OrnsteinUhlenbeck):
    components = 2


T = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)


def test_drift_and_diffusion_are_those_of_the_sde():
    process = OrnsteinUhlenbeck()
    torch.testing.assert_close(process.drift(T), torch.full((3, 1, 1), -1.0, dtype=torch.float64))
    torch.testing.assert_close(process.diffusion(T), torch.full((3, 1, 1), math.sqrt(2), dtype=torch.float64))


def test_transition_composes_to_the_marginal():
    process = OrnsteinUhlenbeck()
    s = T / 2
    psi, q = process.transition(s, T)
    mean_s, cov_s = process.moments(s)
    mean_t, cov_t = process.moments(T)
    torch.testing.assert_close(psi[..., 0] * mean_s, mean_t)
    torch.testing.assert_close(psi.square() * cov_s + q, cov_t)
    torch.testing.assert_close(psi.flatten(), torch.exp(-T / 2))


def test_log_snr_inverts():
    process = OrnsteinUhlenbeck()
    torch.testing.assert_close(process.time_of_log_snr(process.log_snr(T)), T)


def test_perturb_draws_from_the_marginal():
    process = OrnsteinUhlenbeck()
    x0 = torch.full((2, 1, 1, 1), 3.0)
    t = torch.tensor([0.1, 0.9], dtype=torch.float64)
    noise = torch.tensor([0.5, -1.0]).view(2, 1, 1, 1)
    expected = torch.exp(-t) * 3 + torch.sqrt(-torch.expm1(-2 * t)) * torch.tensor([0.5, -1.0])
    torch.testing.assert_close(process.perturb(x0, t, noise).flatten(), expected.float())


@pytest.mark.parametrize("method", ["drift", "diffusion"])
def test_more_components_must_bring_their_own(method):
    with pytest.raises(NotImplementedError, match="2 components"):
        getattr(Doubled(), method)(T)
