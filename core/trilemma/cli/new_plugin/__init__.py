"""Writes the distributions that plugin authors start from."""

from trilemma.cli.new_plugin.naming import Names, names_of
from trilemma.cli.new_plugin.starters import STARTERS, Starter, starter
from trilemma.cli.new_plugin.writing import write_distribution

__all__ = ["STARTERS", "Names", "Starter", "names_of", "starter", "write_distribution"]
