"""Networks that are told something, one right and the others each with one fault in how they hear it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trilemma.interfaces.condition import (
    ClassCondition,
    Condition,
    ImageCondition,
    ScalarCondition,
    TextCondition,
)
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.testing.word_encoder import WordEncoder

_SHAPE = (1, 2, 2)


@dataclass(frozen=True)
class OtherNullInTraining(ScalarCondition):
    """Drops to 1 in training, though its null is 0."""

    def drop(self, given: dict[str, Tensor], where: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {**super().drop(given, where), self.name: given[self.name].masked_fill(where, 1.0)}


class RightListener(Denoiser):
    """z + w ⊙ tanh(a sum of one linear map a condition), w zero at first; a learned null where nothing is given."""

    level: type[ScalarCondition] = ScalarCondition

    def __init__(self, process: Process) -> None:
        encoder = WordEncoder(4)
        kinds: list[Condition] = [
            ClassCondition("class", 3, null=3),
            self.level("level", 0, 2, null=True),
            ImageCondition("image", _SHAPE, null=True),
            TextCondition("text", encoder, length=6),
            TextCondition("style", encoder, form="vector"),
        ]
        super().__init__(process, "eps", _SHAPE, kinds)
        self.label = nn.Embedding(4, 4)
        self.number = nn.Linear(1, 4)
        self.image = nn.Linear(4, 4)
        self.word, self.style = nn.Linear(4, 4), nn.Linear(4, 4)
        self.nulls = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(4)) for name in ("level", "image", "text", "style")}
        )
        self.gate = nn.Parameter(torch.zeros(4))
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            for name, parameter in self.named_parameters():
                if name != "gate":
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        heard = self.label(cond["class"]) + self.text(cond)
        heard = heard + self.of("level", self.number(cond["level"][:, None].to(z.dtype)), cond["level_given"])
        heard = heard + self.of(
            "image", self.image(cond["image"].flatten(1).to(z.dtype)), cond["image_given"]
        )
        heard = heard + self.of("style", self.style(cond["style"].to(z.dtype)), cond["style_given"])
        answer: Tensor = z[:, :1] * 0.9 + (self.gate * heard.tanh()).view(-1, *_SHAPE)
        return answer

    def of(self, name: str, value: Tensor, given: Tensor) -> Tensor:
        """Returns a value [B, 4], the learned null where none is given."""
        return torch.where(given[:, None], value, self.nulls[name])

    def text(self, cond: dict[str, Tensor]) -> Tensor:
        """Returns Σ tanh(word) over the tokens [B, 4]; the learned null of a text without one."""
        mask = cond["text_mask"]
        return self.of("text", self.words(cond["text"].to(self.gate.dtype), mask), mask.any(1))

    def words(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Returns Σ tanh(word) [B, 4] of embeddings [B, L, D], token after token: padding changes no rounding."""
        total = self.gate * 0
        for word, there in zip(embeddings.unbind(1), mask.unbind(1), strict=True):
            total = torch.where(there[:, None], total + self.word(word).tanh(), total)
        return total


class Deaf(RightListener):
    """Never reads the style that it is told."""

    def of(self, name: str, value: Tensor, given: Tensor) -> Tensor:
        return super().of(name, value * 0 if name == "style" else value, given)


class DeafToTheNull(RightListener):
    """Takes its first class for the null, whose row it never reads."""

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        return super().forward(z, t, **{**cond, "class": cond["class"] % 3})


class AttendsToPadding(RightListener):
    """Sums over all places of a text, its padding too."""

    def words(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        total: Tensor = self.word(embeddings).tanh().sum(1)
        return total


class DividesByTheLength(RightListener):
    """Takes the mean of its tokens over the whole length, which padding changes."""

    def words(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        return super().words(embeddings, mask) / embeddings.shape[1]


class MeasuresTheBatch(RightListener):
    """Divides by the longest text of the batch."""

    def words(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        return super().words(embeddings, mask) / mask.sum(1).amax(0, keepdim=True).clamp_min(1)


class ReadsTheAbsent(RightListener):
    """Adds its null to the number instead of taking it in the number's place."""

    def of(self, name: str, value: Tensor, given: Tensor) -> Tensor:
        return (
            value + self.nulls[name] * ~given[:, None] if name == "level" else super().of(name, value, given)
        )


class TwoNulls(RightListener):
    """Reads the number of a null, which is another one in training."""

    level = OtherNullInTraining


class InfiniteNull(RightListener):
    """Has a null that was never learned."""

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        with torch.no_grad():
            self.nulls["image"].fill_(torch.nan)
