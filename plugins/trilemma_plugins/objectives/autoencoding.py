"""The loss of autoencoders: reconstruction, and the divergence of the codes from normal ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from trilemma.errors import UsageError
from trilemma.interfaces.autoencoder import Autoencoder
from trilemma.interfaces.objective import Objective
from trilemma.interfaces.update import Loss, Step, Update
from trilemma.numerics.draws import standard_normals


@dataclass(frozen=True)
class Autoencoding(Objective):
    """Mean over pixels of (x − x̂)², plus `kl` times the mean over numbers of a code of KL(q(c | x) ‖ N(0, I)):

        x̂ = decode(mean + e^{l/2} ξ),    KL = ½ (mean² + e^l − 1 − l),    l the log-variance

    Both are means, so that the weight does not change with the size of images or codes. The statistics by which codes
    are normalised are those of the whole training set, and part of the weights that are written.

    Args:
        kl: weight of the divergence; the published sums correspond to a weight that is larger by the numbers of a code
            and smaller by the pixels.

    Raises:
        UsageError: for a negative weight; in training, for a model that is no autoencoder.

    References:
        Kingma & Welling, Auto-Encoding Variational Bayes, arXiv:1312.6114; Rombach et al., High-Resolution Image
        Synthesis with Latent Diffusion Models, arXiv:2112.10752.
    """

    kl: float = 1e-3

    def __post_init__(self) -> None:
        if not self.kl >= 0:
            raise UsageError(f"autoencoding: kl={self.kl!r} is negative; give a number from 0")

    def update_loss(self, update: Update, step: Step) -> Loss:
        """Returns the loss, and its two terms for the log."""
        coder = _autoencoder(step.model)
        mean, log_variance = coder.encode(step.x0)
        noise = standard_normals(mean, step.generator)
        images = coder.decode(mean + (log_variance / 2).exp() * noise)
        mean, log_variance = mean.float(), log_variance.float()
        error = (images.float() - step.x0).square().mean()
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
        return error + self.kl * divergence, {"reconstruction": error, "kl": divergence}

    def finish(self, model: nn.Module, batches: Iterable[Tensor]) -> None:
        """Sets the statistics of the codes to those of the training set."""
        _autoencoder(model).normalise_over(batches)


def _autoencoder(model: nn.Module) -> Autoencoder:
    if not isinstance(model, Autoencoder):
        raise UsageError(
            f"autoencoding: a {type(model).__name__} has no codes; train a model of the kind autoencoder"
        )
    return model
