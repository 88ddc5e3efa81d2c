"""Writes the distributions that plugin authors start from."""

from trilemma.plugins.new.naming import Names, names_of
from trilemma.plugins.new.starters import STARTERS, Starter, starter
from trilemma.plugins.new.writing import write_distribution

__all__ = ["STARTERS", "Names", "Starter", "names_of", "starter", "write_distribution"]
