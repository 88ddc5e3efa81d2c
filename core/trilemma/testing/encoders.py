"""Checks of every encoder of texts."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from trilemma.interfaces.encoder import Encoder
from trilemma.testing.generators import keeps_global_generators

TEXTS = (
    "a red square",
    "seven",
    "two small blue circles above a large green triangle, on a white ground",
    "",
    "Ünïcode, 数字七, 🙂 and \n a new line",
)


def encoder_checks(encoder: Encoder) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields pairs of a name and a check; a check returns what it found and raises AssertionError where it is wrong."""
    yield "embeddings are float32 of its width", lambda: _width(encoder)
    yield "its mask marks the tokens, zeros behind them", lambda: _mask(encoder)
    yield "a text does not depend on its batch", lambda: _batch(encoder)
    yield "encoding repeats", lambda: _repeats(encoder)
    yield "other texts have other embeddings", lambda: _apart(encoder)
    yield "one vector a text, whatever its padding", lambda: _pooled(encoder)
    yield "its identity stays", lambda: _identity(encoder)
    yield (
        "no global generator is drawn from",
        lambda: keeps_global_generators(lambda: _encoded(encoder, TEXTS)),
    )
    yield "an empty batch gives none", lambda: _empty(encoder)
    yield "a text of any length", lambda: _long(encoder)


@torch.no_grad()
def _encoded(encoder: Encoder, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    return encoder.encode(texts)


def _width(encoder: Encoder) -> str:
    embeddings, mask = _encoded(encoder, TEXTS)
    expected = (len(TEXTS), embeddings.shape[1], encoder.width)
    assert embeddings.shape == expected, f"embeddings are {tuple(embeddings.shape)}, not {expected}"
    assert embeddings.dtype == torch.float32, f"embeddings are {embeddings.dtype}"
    assert mask.shape == expected[:2], f"the mask is {tuple(mask.shape)}, not {expected[:2]}"
    assert mask.dtype == torch.bool, f"the mask is {mask.dtype}"
    assert bool(embeddings.isfinite().all()), "an embedding is not finite"
    assert not embeddings.requires_grad, "embeddings carry gradients"
    return str(encoder.width)


def _mask(encoder: Encoder) -> str:
    embeddings, mask = _encoded(encoder, TEXTS)
    lengths = mask.sum(1)
    for text, length in zip(TEXTS, lengths.tolist(), strict=True):
        assert length, f"{text!r} has no token"
    tokens = torch.arange(mask.shape[1]) < lengths[:, None]
    assert torch.equal(mask, tokens), "a mask has a gap: the tokens must come first"
    assert int(lengths.max()) == mask.shape[1], "no text reaches the length of the mask"
    assert len(set(lengths.tolist())) > 1, "texts of one and of ten words have as many tokens"
    assert not bool(embeddings[~mask].any()), "an embedding behind the tokens is not zero"
    return f"{lengths.tolist()} tokens"


def _batch(encoder: Encoder) -> str:
    embeddings, mask = _encoded(encoder, TEXTS)
    worst = 0.0
    for text, whole, own in zip(TEXTS, embeddings, mask, strict=True):
        alone, tokens = _encoded(encoder, [text])
        assert int(tokens.sum()) == int(own.sum()), f"{text!r} has another number of tokens alone"
        worst = max(worst, float((alone[0][tokens[0]] - whole[own]).abs().max()))
    assert worst < 1e-6, (
        f"embeddings move by {worst:.2g} beside longer texts; encode texts of a length together"
    )
    return f"to {worst:.1g}"


def _repeats(encoder: Encoder) -> str:
    first, again = (_encoded(encoder, TEXTS)[0] for _ in range(2))
    assert torch.equal(first, again), "the same texts have other embeddings the second time"
    return "to the bit"


def _apart(encoder: Encoder) -> str:
    texts = TEXTS[:3]
    vectors = encoder.pooled(*_encoded(encoder, texts))
    for i in range(len(texts)):
        for j in range(i):
            assert not torch.allclose(vectors[i], vectors[j], atol=1e-6), (
                f"{texts[i]!r} is told as {texts[j]!r} is"
            )
    order = encoder.encode(["a cat bites a dog", "a dog bites a cat"])[0]
    assert not torch.equal(order[0], order[1]), "the order of words does not matter"
    return f"{len(texts)} texts"


def _pooled(encoder: Encoder) -> str:
    embeddings, mask = _encoded(encoder, TEXTS)
    vectors = encoder.pooled(embeddings, mask)
    expected = (len(TEXTS), encoder.width)
    assert vectors.shape == expected, f"vectors are {tuple(vectors.shape)}, not {expected}"
    assert vectors.dtype == torch.float32, f"vectors are {vectors.dtype}"
    more = mask.shape[1]
    for filler in (0.0, 3.0):
        longer = encoder.pooled(pad(embeddings, (0, 0, 0, more), value=filler), pad(mask, (0, more)))
        moved = float((longer - vectors).abs().max())
        assert moved < 1e-6, f"vectors move by {moved:.2g} at twice the padding"
    return f"{tuple(vectors.shape)}"


def _identity(encoder: Encoder) -> str:
    found = encoder.identity
    assert isinstance(found, str), f"its identity is no text but {type(found).__name__}"
    assert found, "its identity is empty"
    one_line = found.isprintable() and len(found) <= 300
    assert one_line, "its identity is not one line of at most 300 characters"
    encoder.encode(TEXTS[:1])
    assert encoder.identity == found, "its identity changes when it encodes"
    assert copy.deepcopy(encoder).identity == found, "a copy of it has another identity"
    return found


def _empty(encoder: Encoder) -> str:
    try:
        embeddings, mask = _encoded(encoder, [])
    except Exception as error:
        # A plugin may raise anything.
        raise AssertionError(f"of no texts it raises {type(error).__name__}: {error}") from error
    assert embeddings.dim() == 3, f"of no texts embeddings are {tuple(embeddings.shape)}"
    assert embeddings.shape[::2] == (0, encoder.width), (
        f"of no texts embeddings are {tuple(embeddings.shape)}"
    )
    assert mask.shape == embeddings.shape[:2], f"of no texts the mask is {tuple(mask.shape)}"
    return str(tuple(embeddings.shape))


def _long(encoder: Encoder) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        embeddings, mask = _encoded(encoder, ["word " * 2000, "word"])
    assert bool(embeddings.isfinite().all()), "a text of 2,000 words has an embedding that is not finite"
    assert int(mask[1].sum()) < int(mask[0].sum()), (
        "a text of 2,000 words has no more tokens than one of one word"
    )
    return f"{int(mask[0].sum())} tokens of 2,000 words"
