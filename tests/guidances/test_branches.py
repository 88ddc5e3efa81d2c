"""Guidances that bring branches, networks or projections of their own, against their papers' formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import trilemma
from trilemma.errors import UsageError
from trilemma.interfaces.sampler import Sampler
from trilemma.numerics.conversion import convert
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.cfg.guidance import CFG
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.guidances.apg import APG
from trilemma_plugins.guidances.autoguidance import Autoguidance
from trilemma_plugins.guidances.cfg_pp import CFGpp
from trilemma_plugins.guidances.interval import Interval
from trilemma_plugins.guidances.perturbed_attention import PerturbedAttention
from trilemma_plugins.unet.unet import UNet

SHAPE = (1, 2, 2)


def gaussian(process, mean=(0.5, -0.2), parameterization="v"):
    return GaussianDenoiser(process, mean, 0.04, parameterization, SHAPE)


def draw(model, guidance, n=3, steps=10, **more):
    settings = {"sampler": DDIM(), "cond": {"class": 0}, "dtype": torch.float64, **more}
    return trilemma.sample(model, n, guidance=guidance, steps=steps, **settings)


def test_the_same_model_twice_is_unguided_and_paid_twice(process):
    model = gaussian(process)
    guided, plain = draw(model, Autoguidance(model, 3.0)), draw(model, None)
    assert torch.allclose(guided.samples, plain.samples, rtol=0, atol=1e-12)
    assert guided.provenance["nfe"] == 20
    once = draw(model, Autoguidance(model, 1.0))
    assert torch.equal(once.samples, plain.samples)
    assert once.provenance["nfe"] == 10


def test_a_weaker_gaussian_is_extrapolated_away_from(process):
    """D = D_w + s(D_m − D_w) of equal variances is the denoiser of the mean m_w + s(m − m_w)."""
    weak = gaussian(process, (0.2, 0.0))
    counts = {}
    model = gaussian(process)
    for name, network in (("model", model), ("weak", weak)):
        network.register_forward_hook(
            lambda *call, name=name: counts.setdefault(name, []).append(len(call[1][0]))
        )
    guided = draw(model, Autoguidance(weak, 3.0)).samples
    expected = draw(gaussian(process, (0.2 + 3 * 0.3, 0.0)), None).samples
    assert torch.allclose(guided, expected, rtol=0, atol=1e-12)
    assert counts == {"model": [3] * 10, "weak": [3] * 10}


def test_a_sampler_that_runs_its_own_steps_pays_the_same(process):
    class Own(Sampler):
        order, deterministic = 1, True

        def times(self, process, steps):
            return DDIM().times(process, steps)

        def sample(self, predict, z, times, noise, report):
            alpha, sigma = predict.denoiser.process.alpha_sigma(times)
            for i in range(len(times) - 1):
                x0 = predict(z, times[i].item(), "x0")
                ratio = (sigma[i + 1] / sigma[i]).item()
                z = ratio * z + (alpha[i + 1] - alpha[i] * sigma[i + 1] / sigma[i]).item() * x0
            return z

    model, weak = gaussian(process), gaussian(process, (0.2, 0.0))
    for guidance in (Autoguidance(weak, 2.0), Interval(0.3, 0.6, guidance=CFG(3.0)), APG(3.0, 0.3)):
        planned, own = draw(model, guidance), draw(model, guidance, sampler=Own())
        assert torch.allclose(planned.samples, own.samples, rtol=0, atol=1e-9)
        assert planned.provenance["nfe"] == own.provenance["nfe"]


@pytest.mark.parametrize(
    ("weak", "words"),
    [
        (lambda p: gaussian(p, parameterization="eps"), "parameterization"),
        (lambda p: GaussianDenoiser(p, (0.5, -0.2), 0.04, "v", (1, 4, 4)), "shape"),
        (lambda p: gaussian(p, (0.1, 0.2, 0.3)), "conditions"),
    ],
)
def test_weaker_models_that_do_not_agree_are_refused(process, weak, words):
    with pytest.raises(UsageError, match=words):
        draw(gaussian(process), Autoguidance(weak(process)))


@pytest.mark.parametrize("parameterization", ["eps", "x0", "v"])
def test_cfg_pp_is_the_papers_step(process, parameterization):
    model, steps, scale = gaussian(process, parameterization=parameterization), 7, 0.6
    times = DDIM().times(process, steps)
    alpha, sigma = process.alpha_sigma(times)
    start = torch.linspace(-1, 1, 4, dtype=torch.float64).view(1, *SHAPE)
    z = start
    for i in range(steps):
        levels = process.alpha(times[i]), process.sigma(times[i])
        p, q = convert(parameterization, "eps", *levels)
        t = times[i : i + 1].float()
        eps = [p * z + q * model(z, t, **{"class": torch.tensor([label])}) for label in (0, 1)]
        guided = eps[1] + scale * (eps[0] - eps[1])
        x0 = (z - sigma[i] * guided) / alpha[i]
        z = alpha[i + 1] * x0 + sigma[i + 1] * eps[1]
    drawn = draw(model, CFGpp(scale), latent=start, steps=steps, n=1)
    assert torch.allclose(drawn.samples, z, rtol=0, atol=1e-8)
    assert drawn.provenance["nfe"] == 2 * steps


@pytest.mark.parametrize("parameterization", ["eps", "x0", "v", "score"])
def test_apg_is_the_papers_formula(process, parameterization):
    model = gaussian(process, parameterization=parameterization)
    generator = torch.Generator().manual_seed(0)
    z, x_c, x_u = (torch.randn(5, *SHAPE, generator=generator, dtype=torch.float64) for _ in range(3))
    levels = [entry(torch.tensor(0.4, dtype=torch.float64)) for entry in (process.alpha, process.sigma)]
    p, q = convert("x0", parameterization, *levels)
    bound = APG(3.0, 0.25, 1.5).bind(model, {"class": 0}, torch.tensor([1.0, 0.0], dtype=torch.float64))
    combined = bound.combine(z, 0.4, [p * z + q * x_c, p * z + q * x_u], {})
    back = convert(parameterization, "x0", *levels)
    x0 = back[0] * z + back[1] * combined
    for sample in range(5):
        c, difference = x_c[sample].flatten(), (x_c - x_u)[sample].flatten()
        difference = difference * min(1.0, 1.5 / float(difference.norm()))
        along = (difference @ c) / (c @ c) * c
        expected = c + 2.0 * (difference - along + 0.25 * along)
        assert torch.allclose(x0[sample].flatten(), expected, rtol=0, atol=1e-10)


def test_apg_without_projection_is_cfg(process):
    model = gaussian(process)
    plain, projected = draw(model, CFG(3.0)), draw(model, APG(3.0, eta=1.0))
    assert torch.allclose(plain.samples, projected.samples, rtol=0, atol=1e-9)
    assert plain.provenance["nfe"] == projected.provenance["nfe"] == 20
    unguided, one = draw(model, None), draw(model, APG(1.0))
    assert torch.equal(unguided.samples, one.samples)
    assert one.provenance["nfe"] == 10


def test_apg_does_not_know_its_batch(process):
    model, guidance = gaussian(process), APG(5.0, 0.0, 0.5)
    together, apart = draw(model, guidance, 5), draw(model, guidance, 5, batch_size=2)
    assert torch.allclose(together.samples, apart.samples, rtol=0, atol=1e-12)


def unet(process, attention=(7,)):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet(
            process, "v", (1, 14, 14), channels=(8, 16), blocks=1, attention=attention, head=8, classes=3
        )
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1)
    return model.double().eval().requires_grad_(False)


def test_the_perturbed_branch_has_identity_attention(process):
    model = unet(process)
    twin = model.with_attention(lambda q, k, v: v)
    assert {id(entry) for entry in twin.parameters()} == {id(entry) for entry in model.parameters()}
    z = torch.randn(2, 1, 14, 14, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t, label = torch.tensor([0.3, 0.7]), torch.tensor([0, 1])
    before = model(z, t, **{"class": label})
    assert not torch.allclose(before, twin(z, t, **{"class": label}), atol=1e-6)
    # Where q = 0 and k = 0, attention averages; the identity passes v: they differ, and v alone decides the twin.
    for layer in model.modules():
        if hasattr(layer, "qkv"):
            channels = layer.qkv.weight.shape[1]
            perturbed = twin(z, t, **{"class": label})
            layer.qkv.weight[: 2 * channels].zero_()
            assert torch.equal(perturbed, twin(z, t, **{"class": label}))
    assert torch.equal(
        model.with_attention(lambda q, k, v: v)(z, t, **{"class": label}), twin(z, t, **{"class": label})
    )


def test_perturbed_attention_extrapolates_from_its_branch(process):
    model = unet(process)
    twin = model.with_attention(lambda q, k, v: v)
    settings = {"steps": 4, "cond": {"class": 1}}
    guided = draw(model, PerturbedAttention(1.5), **settings)
    by_hand = draw(model, Autoguidance(twin, 2.5), **settings)
    assert torch.allclose(guided.samples, by_hand.samples, rtol=0, atol=1e-10)
    assert guided.provenance["nfe"] == 8
    plain, none = draw(model, None, **settings), draw(model, PerturbedAttention(0.0), **settings)
    assert torch.equal(plain.samples, none.samples)
    assert none.provenance["nfe"] == 4
    assert not torch.allclose(plain.samples, guided.samples, atol=1e-3)


def test_a_network_without_attention_is_refused(process):
    with pytest.raises(UsageError, match="no self-attention"):
        draw(unet(process, ()), PerturbedAttention(1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_of_another_dtype_than_the_network(process, dtype):
    """The interval leaves rows with one branch, in buffers made for two."""
    model = unet(process).float()
    drawn = draw(model, Interval(0.4, 0.8, guidance=CFG(2.0)), dtype=dtype, steps=5)
    other = draw(unet(process), Interval(0.4, 0.8, guidance=CFG(2.0)), dtype=torch.float64, steps=5)
    assert torch.allclose(drawn.samples.double(), other.samples, atol=1e-3)
