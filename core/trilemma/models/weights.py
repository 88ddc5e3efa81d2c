"""The sha256 of a network's weights, computed once for as long as they stay the same."""

from __future__ import annotations

import weakref

from torch import Tensor, nn

from trilemma.registry.recording import tensors_digest

# By network: its tensors with their versions, and the sha256 of their values at that time.
_Marks = list[tuple["weakref.ref[Tensor]", int]]
_known: weakref.WeakKeyDictionary[nn.Module, tuple[_Marks, str | None]] = weakref.WeakKeyDictionary()


def loaded_from(network: nn.Module, sha256: str) -> None:
    """Notes that a network's weights are those of a file, until they are changed."""
    _known[network] = _marks(network), sha256


def weights_digest(network: nn.Module, stated: str | None = None) -> str | None:
    """Returns the sha256 of a network's weights.

    Args:
        network: its parameters and buffers count, with their names, shapes and dtypes.
        stated: sha256 to trust unless the weights are known to be others.
    """
    marks, sha256 = _known.get(network, (None, None))
    now = _marks(network)
    if marks is None and stated is not None:
        return stated
    if marks is None or not _same(marks, now):
        sha256 = tensors_digest(network.state_dict())
        _known[network] = now, sha256
    return sha256


def _marks(network: nn.Module) -> _Marks:
    tensors = [*network.parameters(), *network.buffers()]
    return [(weakref.ref(entry), -1 if entry.is_inference() else entry._version) for entry in tensors]


def _same(before: _Marks, now: _Marks) -> bool:
    return len(before) == len(now) and all(
        old() is new() and version == other and version >= 0
        for (old, version), (new, other) in zip(before, now, strict=True)
    )
