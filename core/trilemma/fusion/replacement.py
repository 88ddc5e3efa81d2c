"""What stands in for a forward."""

from __future__ import annotations

from typing import Any

from torch import nn


class Replacement:
    """A forward that stands in for that of a module."""

    def __init__(self, owner: nn.Module) -> None:
        self.owner = owner

    def own(self, *args: Any, **kwargs: Any) -> Any:
        """The forward that the module's class defines."""
        return type(self.owner).forward(self.owner, *args, **kwargs)
