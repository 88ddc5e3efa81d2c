"""Errors: one line each, with the exit code of the command line."""

from __future__ import annotations


class TrilemmaError(Exception):
    """An error that a user can act on: what was wrong, what was expected, what to do."""

    exit_code = 1


class UsageError(TrilemmaError, ValueError):
    """An argument that cannot be used."""

    exit_code = 2


class PluginUnavailable(TrilemmaError):
    """A plugin that cannot be used here, for want of a package or because it failed to load."""

    exit_code = 3


class ConformanceError(TrilemmaError):
    """A plugin that does not do what it declares."""

    exit_code = 4


class ModelError(TrilemmaError):
    """A model, checkpoint or network that cannot be read, written or trusted."""


class DataError(TrilemmaError):
    """A data set that cannot be read."""


class OutputError(TrilemmaError):
    """A file that cannot be written."""
