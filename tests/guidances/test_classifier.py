"""Classifier guidance against exact posteriors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import trilemma
from trilemma.errors import TrilemmaError, UsageError
from trilemma.testing.gaussian import GaussianDenoiser
from trilemma_plugins.ddim.sampler import DDIM
from trilemma_plugins.guidances.classifier import Classifier

SETTINGS = {"sampler": DDIM(), "steps": 25, "dtype": torch.float64}


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_scale_one_on_a_mixture_is_conditional_sampling(mixture, posterior, eta):
    settings = {**SETTINGS, "sampler": DDIM(eta=eta)}
    conditional = GaussianDenoiser(
        mixture.process, [0.5, -0.3, 0.0], 0.04, mixture.parameterization, mixture.shape
    )
    guided = trilemma.sample(mixture, 6, guidance=Classifier(posterior, label=[0, 1]), **settings)
    expected = trilemma.sample(conditional, 6, cond={"class": [0, 1]}, **settings)
    assert float((guided.samples - expected.samples).abs().max()) < 1e-6
    assert guided.provenance["nfe"] == 25


class Linear(nn.Module):
    """log p(y = 0 | z) = k·Σz + const, as the first of two logits under a softmax that gives all to neither."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = k

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        chosen = self.k * z.sum((1, 2, 3)) - 50  # log p of class 0; the other class has nearly everything
        return torch.stack([chosen, torch.log1p(-chosen.exp())], 1)


def test_a_linear_log_probability_shifts_eps_by_sigma_k(process):
    model = GaussianDenoiser(process, 0.1, 0.2, "eps", (1, 2, 2))
    guidance = Classifier(Linear(0.7), scale=1.0, label=0)
    z = torch.linspace(-1, 1, 8, dtype=torch.float64).view(2, 1, 2, 2)
    bound = guidance.bind(model, {}, torch.tensor([1.0, 0.0], dtype=torch.float64))
    plain = model(z, torch.full((2,), 0.4))
    with torch.inference_mode():
        shifted = bound.combine(z.clone(), 0.4, [plain], bound.targets(torch.arange(2), {}))
    sigma = process.sigma(torch.tensor(0.4, dtype=torch.float64))
    assert torch.allclose(shifted - plain, -sigma * 0.7 * torch.ones_like(z), rtol=0, atol=1e-12)


def test_no_scale_is_no_guidance_and_batches_do_not_matter(mixture, posterior):
    plain = trilemma.sample(mixture, 5, **SETTINGS).samples
    none = trilemma.sample(mixture, 5, guidance=Classifier(posterior, 0.0, label=1), **SETTINGS).samples
    assert torch.equal(plain, none)
    guidance = Classifier(posterior, 2.0, label=[0, 1])
    together = trilemma.sample(mixture, 5, guidance=guidance, **SETTINGS).samples
    apart = trilemma.sample(mixture, 5, guidance=guidance, batch_size=2, **SETTINGS).samples
    assert torch.allclose(together, apart, rtol=0, atol=1e-12)
    assert not together.requires_grad


@pytest.mark.parametrize("label", [-1, "seven", [], [0.5]])
def test_bad_labels_are_refused(label, posterior):
    with pytest.raises(UsageError, match="label=") as error:
        Classifier(posterior, label=label)
    assert "\n" not in str(error.value)


def test_what_cannot_guide_is_refused(mixture, posterior):
    for guidance, words in [
        (Classifier(posterior), "needs a class"),
        (Classifier(nn.Sequential(nn.Dropout(0.5)), label=0), "training mode"),
        (Classifier("nowhere", label=0), "unknown model 'nowhere'"),
        (Classifier("mnist-features", label=0), "not of the kind Classifier"),
    ]:
        with pytest.raises(TrilemmaError, match=words) as error:
            trilemma.sample(mixture, guidance=guidance, **SETTINGS)
        assert "\n" not in str(error.value)


def test_a_class_asked_for_by_name_is_the_classifiers(process):
    model = GaussianDenoiser(process, (0.1, -0.3, 0.2), 0.2, "eps", (1, 2, 2))
    model.name_classes("class", ("dark", "bright"))

    class ByMean(nn.Module):
        def forward(self, z, t):
            mean = z.mean((1, 2, 3))
            return torch.stack([-mean, mean], 1)

    settings = {"sampler": "ddim", "steps": 3, "guidance": Classifier(ByMean(), 2.0)}
    named, numbered = (
        trilemma.sample(model, 3, cond={"class": given}, **settings).samples
        for given in (["bright", "dark"], [1, 0])
    )
    assert torch.equal(named, numbered)
