"""Training: recipes, the loop, and checkpoints that resume to the bit."""

from trilemma.train.recipe import Recipe, read_recipe
from trilemma.train.trainer import TrainingResult, train

__all__ = ["Recipe", "TrainingResult", "read_recipe", "train"]
