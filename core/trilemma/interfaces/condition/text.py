"""Texts, told to a network as the embeddings of an encoder."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from trilemma.checks import checked_integer
from trilemma.errors import UsageError, shown
from trilemma.interfaces.condition.condition import Condition
from trilemma.interfaces.condition.prepared import Prepared
from trilemma.interfaces.encoder import Encoder, encoder_of, encoder_width
from trilemma.registry import building
from trilemma.registry.recording import LONGEST_TEXT
from trilemma.registry.spec import parse_value

FORMS = ("sequence", "vector")
# Texts that the encoder is given at a time; their embeddings are cut before the next ones are made.
_TOGETHER = 1024


@dataclass(frozen=True)
class TextCondition(Condition):
    """A text. The network receives what an encoder makes of it, encoded once a request.

    As a sequence it receives the embeddings of the tokens, float32 [B, L, D], under its name, and `<name>_mask`, bool
    [B, L]: True for the tokens of the text, False for the places after them, which are zeros and must not matter. A
    mask without a True is the null. As a vector it receives one embedding of the whole text, float32 [B, D], and, where
    there is a null, `<name>_given`, bool [B].

    A value is a string or a sequence of strings. The empty string is a text like any other, not the null.

    Attributes:
        name: under which a text is given.
        encoder: spec of the encoder, or the encoder itself.
        width: D; 0 for that of the encoder.
        length: L; of a longer text the embeddings of the first L tokens are taken, with a warning.
        form: "sequence" or "vector".
        null: whether there is a null.

    Raises:
        UsageError: for an unknown form, an impossible length, or a width that the encoder does not have.
    """

    encoder: str | Encoder
    width: int = 0
    length: int = 32
    form: str = "sequence"
    null: bool = True

    kind = "text"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UsageError(
                f"condition {self.name!r}: unknown form={self.form!r}; choose from {', '.join(FORMS)}"
            )
        checked_integer(self.length, f"condition {self.name!r}: length", 1)
        width = checked_integer(self.width, f"condition {self.name!r}: width", 0)
        object.__setattr__(self, "width", width or encoder_width(self.encoder))

    @property
    def has_null(self) -> bool:
        return self.null

    @property
    def keywords(self) -> tuple[str, ...]:
        if self.form == "sequence":
            return (self.name, f"{self.name}_mask")
        return (self.name, f"{self.name}_given") if self.null else (self.name,)

    def entries(self, values: Sequence[Any]) -> Prepared:
        for entry in values:
            if entry is not None and not _is_text(entry):
                raise UsageError(f"{self.name}={shown(entry)} is no text; {self.expected()}")
        texts = list(dict.fromkeys(entry for entry in values if entry is not None))
        parts = [self._encoded(texts[i : i + _TOGETHER]) for i in range(0, len(texts), _TOGETHER)]
        if None in values:
            parts.append(self._null())
        places: dict[Any, int] = {text: place for place, text in enumerate([*texts, None])}
        which = None if len(texts) == len(values) else torch.tensor([places[entry] for entry in values])
        return Prepared({name: torch.cat([part[name] for part in parts]) for name in self.keywords}, which)

    def drawn(self, count: int, generator: torch.Generator) -> Prepared:
        shape = (count, self.length, self.width) if self.form == "sequence" else (count, self.width)
        tensors = {self.name: torch.randn(shape, generator=generator)}
        if self.form == "sequence":
            tokens = 1 + torch.arange(count) % self.length
            mask = torch.arange(self.length) < tokens[:, None]
            tensors = {self.name: tensors[self.name] * mask[..., None], f"{self.name}_mask": mask}
        elif self.null:
            tensors[f"{self.name}_given"] = torch.ones(count, dtype=torch.bool)
        return Prepared(tensors)

    def expected(self) -> str:
        return f"give a text, such as {self.name}='a red square'"

    def parse(self, text: str) -> Any:
        """Returns the text itself; a list in brackets is a list of texts, ["a cat", "a dog"]."""
        if text[0] == "[" and text[-1] == "]":
            listed = parse_value(text)
            return [entry if entry is None else str(entry) for entry in listed]
        return text

    def recorded(self, value: Any, prepared: Prepared | None) -> Any:
        """Returns the texts, or the digest of more than 4,096 characters of them."""
        if isinstance(value, Prepared):
            return super().recorded(value, prepared)
        texts = self.listed(value)
        if sum(len(text) for text in texts if text is not None) <= LONGEST_TEXT:
            return building.condition(value)
        content = hashlib.sha256(repr(texts).encode("utf-8", "surrogatepass")).hexdigest()
        return f"<{len(texts)} texts sha256:{content[:16]}>"

    def source(self) -> str | None:
        return encoder_of(self.encoder).identity

    def _null(self) -> dict[str, Tensor]:
        shape = (1, self.length, self.width) if self.form == "sequence" else (1, self.width)
        return {
            name: torch.full(shape, float(self.fill))
            if name == self.name
            else torch.full(shape[:-1], bool(self.fill))
            for name in self.keywords
        }

    def _encoded(self, texts: Sequence[str]) -> dict[str, Tensor]:
        encoder = encoder_of(self.encoder)
        with torch.inference_mode(False), torch.no_grad():
            embeddings, mask = encoder.encode(texts)
        if embeddings.shape != (len(texts), mask.shape[1], self.width) or mask.dtype != torch.bool:
            raise UsageError(
                f"condition {self.name!r} has width {self.width}, its encoder gives {tuple(embeddings.shape)} with a "
                f"mask {tuple(mask.shape)}; use the encoder that the model was trained with"
            )
        empty = ~mask.any(1)
        if bool(empty.any()):
            text = texts[int(empty.nonzero()[0])]
            raise UsageError(f"{self.name}={shown(text)} has no token for the encoder; give another text")
        if self.form == "vector":
            vectors = {self.name: encoder.pooled(embeddings, mask)}
            given = torch.ones(len(texts), dtype=torch.bool)
            return vectors | ({f"{self.name}_given": given} if self.null else {})
        self._warn(texts, mask)
        more = max(0, self.length - mask.shape[1])
        cut = mask[:, : self.length]
        embeddings = embeddings[:, : self.length].masked_fill(~cut.unsqueeze(-1), 0.0)
        return {self.name: pad(embeddings, (0, 0, 0, more)), f"{self.name}_mask": pad(cut, (0, more))}

    def _warn(self, texts: Sequence[str], mask: Tensor) -> None:
        long = mask[:, self.length :].any(1)
        count = int(long.sum())
        if count:
            text = texts[int(long.nonzero()[0])]
            warnings.warn(
                f"{self.name}: {count} of {len(texts)} texts have more tokens than the {self.length} that the model is "
                f"told, and are cut: {shown(text)}",
                UserWarning,
                stacklevel=2,
            )


def _is_text(value: Any) -> bool:
    """Returns whether a value is a string of characters; half of a surrogate pair is none."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)
