"""Embeddings of texts on disk: a training set is encoded once, whatever runs use it."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trilemma.errors import OutputError
from trilemma.files.cache_folder import cache_folder
from trilemma.interfaces.condition import TextCondition
from trilemma.interfaces.encoder import Encoder, encoder_of
from trilemma.output.atomic import replacing
from trilemma.registry.recording import tensors_digest

# Texts that are encoded before they are written.
_TOGETHER = 4096
# Key of the digest of a file's embeddings, in its header.
_CONTENT = "sha256"
# Hexadecimal digits of a text's digest that name the file it is in: 256 files at most.
_FILE_DIGITS = 2


class StoredEncoder(Encoder):
    """An encoder that reads from disk what it encoded before, by the digest of its identity and the text.

    A file that is damaged counts as not there, and is written anew. Where the folder cannot be written, texts are
    encoded each time, with a warning. Several processes may use one folder: a file is replaced whole, and what two of
    them encode at a time is kept of one of them.

    Args:
        encoder: which encodes the texts that are not there.
        folder: a folder of its own for each encoder is made in it; by default `encodings` in the cache folder.
    """

    def __init__(self, encoder: Encoder, folder: Path | None = None) -> None:
        self.encoder, self.width = encoder, encoder.width
        self._folder = folder or cache_folder() / "encodings"

    @property
    def identity(self) -> str:
        return self.encoder.identity

    @cached_property
    def folder(self) -> Path:
        """The folder of the files of this encoder."""
        return self._folder / _digest(self.identity)[:16]

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        wanted = {_digest(self.identity, text): text for text in texts}
        found = self._read(wanted)
        left = {key: text for key, text in wanted.items() if key not in found}
        keys = list(left)
        for begin in range(0, len(keys), _TOGETHER):
            some = keys[begin : begin + _TOGETHER]
            embeddings, mask = self.encoder.encode([left[key] for key in some])
            made = {key: embeddings[i][mask[i]].clone() for i, key in enumerate(some)}
            found |= made
            self._write(made)
        return _padded([found[_digest(self.identity, text)] for text in texts], self.width)

    def pooled(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        return self.encoder.pooled(embeddings, mask)

    def _read(self, wanted: Mapping[str, str]) -> dict[str, Tensor]:
        """The embeddings [l, D] that are there, by digest."""
        found: dict[str, Tensor] = {}
        for path, keys in self._files(wanted).items():
            there = self._content(path)
            found |= {key: there[key] for key in keys if key in there}
        return found

    def _write(self, made: Mapping[str, Tensor]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path, keys in self._files(made).items():
                kept = self._content(path) | {key: made[key] for key in keys}
                with replacing(path) as file:
                    file.write(save(kept, {_CONTENT: tensors_digest(kept)}))
        except (OSError, OutputError) as error:
            warnings.warn(f"embeddings are not kept: {error}; set TRILEMMA_CACHE", UserWarning, stacklevel=2)

    def _content(self, path: Path) -> dict[str, Tensor]:
        """The embeddings in a file by digest; none where it is missing or damaged."""
        try:
            with safe_open(path, framework="pt") as file:
                stated = (file.metadata() or {}).get(_CONTENT)
                found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return {}
        return found if stated == tensors_digest(found) else {}

    def _files(self, keys: Mapping[str, object]) -> dict[Path, list[str]]:
        files: defaultdict[Path, list[str]] = defaultdict(list)
        for key in keys:
            files[self.folder / f"{key[:_FILE_DIGITS]}.safetensors"].append(key)
        return files


def stored(condition: TextCondition, folder: Path | None = None) -> TextCondition:
    """Returns a condition that reads its texts' embeddings from disk, where they are there; see `StoredEncoder`."""
    return replace(condition, encoder=StoredEncoder(encoder_of(condition.encoder), folder))


def _padded(entries: Sequence[Tensor], width: int) -> tuple[Tensor, Tensor]:
    longest = max(map(len, entries), default=0)
    embeddings = torch.zeros(len(entries), longest, width)
    for row, entry in zip(embeddings, entries, strict=True):
        row[: len(entry)] = entry
    lengths = torch.tensor([len(entry) for entry in entries], dtype=torch.int64)
    return embeddings, torch.arange(longest) < lengths[:, None]


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        blob = part.encode("utf-8", "surrogatepass")
        digest.update(f"{len(blob)}:".encode() + blob)
    return digest.hexdigest()
