"""Text agreement: is the caption that was asked for the best of many for the image?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.checks import checked_integer
from trilemma.errors import TrilemmaError, UsageError, shown
from trilemma.interfaces.features import Features
from trilemma.interfaces.metric import Metric, Observation
from trilemma.models.loading import load_of
from trilemma.train.encodings import stored
from trilemma_plugins.metrics.matching_network import MatchingNetwork

TEXT = "text"
# Texts, each of which is compared with every image.
MOST = 100_000


class CaptionedImages:
    """Vectors of images and the texts that they have or were asked to have; images without a text count for nothing.

    Args:
        network: which sees the images; None for one that is not needed, since no image has a text.
    """

    def __init__(self, network: MatchingNetwork | None) -> None:
        self.network = network
        self.texts: list[str] = []
        self._vectors: list[Tensor] = []

    def update(self, batch: Observation) -> None:
        """Takes in images [B, C, H, W] and B texts."""
        texts = batch.told.get(TEXT)
        if texts is None or batch.images is None:
            return
        if self.network is None:
            raise UsageError(
                "text-agreement: no network compares images with texts; give one, as text-agreement:network=NAME"
            )
        given = [place for place, text in enumerate(texts) if text is not None]
        self._vectors.append(self.network.observe(batch.images[given]).features)
        self.texts += [texts[place] for place in given]

    @property
    def vectors(self) -> Tensor:
        """The vectors [N, D] of all images."""
        return torch.cat(self._vectors)


@dataclass(frozen=True)
class TextAgreement(Metric[CaptionedImages]):
    """The fraction of the images whose own text fits best among `among` texts, by a network that matches them.

    Of text y the others are those o with the smallest sha256 of "y NUL o", of all texts that images were asked to have
    or that 1,000 reference images have. So they depend on no order, and chance is 1/`among`.

    Args:
        network: a trained `matching-network`, by its name or folder; "" for none, where no image has a text.
        among: number of texts.

    Raises:
        UsageError: for a number below 2 or above 100,000, a model of another kind, or, in measuring, no network.
        TrilemmaError: for a missing or damaged model, or fewer texts than that.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020.
    """

    network: str = ""
    among: int = 100

    reference_images = 1000

    def __post_init__(self) -> None:
        checked_integer(self.among, "text-agreement: among", 2, MOST, what="is no number of texts")
        if not isinstance(self.network, str):
            raise UsageError(
                f"text-agreement: network={shown(self.network)} is no model; give the name or folder of one"
            )

    def accumulator(self) -> CaptionedImages:
        return CaptionedImages(matching(self.network) if self.network else None)

    def value(self, reference: CaptionedImages, samples: CaptionedImages) -> float | None:
        network = samples.network
        if network is None or not samples.texts:
            return None
        asked = list(dict.fromkeys(samples.texts))
        known = list(dict.fromkeys([*asked, *reference.texts]))
        if len(known) < self.among:
            raise TrilemmaError(
                f"text-agreement: there are {len(known)} texts, fewer than among={self.among}; give a smaller number"
            )
        vectors, place = network.told(known), {text: row for row, text in enumerate(known)}
        rows = {
            text: torch.tensor([place[o] for o in (text, *others(text, known, self.among - 1))])
            for text in asked
        }
        right = 0
        for text, image in zip(samples.texts, samples.vectors, strict=True):
            fits = vectors[rows[text]] @ image
            right += bool(fits[0] > fits[1:].max())
        return right / len(samples.texts)


def others(text: str, known: Iterable[str], count: int) -> list[str]:
    """Returns the `count` texts o other than y with the smallest sha256 of "y NUL o"."""
    digests = {
        o: hashlib.sha256(f"{text}\0{o}".encode(errors="surrogatepass")).digest() for o in known if o != text
    }
    return sorted(digests, key=digests.__getitem__)[:count]


def matching(given: str) -> MatchingNetwork:
    """Returns a trained network by its name or folder; it keeps the embeddings of texts on disk.

    Raises:
        UsageError: for a model of another kind.
        TrilemmaError: for a missing or damaged one.
    """
    network = load_of(Features, given)  # type: ignore[type-abstract]
    if not isinstance(network, MatchingNetwork):
        raise UsageError(
            f"text-agreement: {given} does not match images with texts; give a trained matching-network"
        )
    network.conditions = {name: stored(condition) for name, condition in network.conditions.items()}
    return network
