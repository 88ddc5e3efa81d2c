"""The hook that every plugin implements."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pluggy

from trilemma.registry.registry import Registry

# A plugin module may set TRILEMMA_API to the version it was written for.
API_VERSION = 1

HOOK = "trilemma_register"
# The attribute that pluggy's marker sets.
_MARK = "trilemma_impl"

hookimpl = pluggy.HookimplMarker("trilemma")
"""Marks the function of a plugin's module that registers its components.

It is named `trilemma_register` and takes `registry`, a `Registry` to which it adds them. It is called once a process.
"""


def hook_of(module: object) -> Callable[[Registry], object]:
    """Returns the hook of a plugin's module, to be called with a registry.

    Raises:
        TypeError: for a module without one, a marked function of another name, or one that takes other arguments.
    """
    members = {name: getattr(module, name, None) for name in dir(module)}
    hooks = {
        name: member
        for name, member in members.items()
        if inspect.isroutine(member) and hasattr(member, _MARK)
    }
    for name in hooks:
        if name != HOOK:
            raise TypeError(f"it marks {name!r} as a hook, and there is no hook but {HOOK}")
    if HOOK not in hooks:
        raise TypeError(f"it has no @hookimpl function named {HOOK}")
    hook = hooks[HOOK]
    taken = inspect.signature(hook)
    try:
        taken.bind(registry=None)
    except TypeError:
        raise TypeError(f"its {HOOK} takes {taken}; write def {HOOK}(registry)") from None
    return lambda registry: hook(registry=registry)
