"""The grids of cells, by operator."""

from collections.abc import Callable, Iterator
from typing import Final

from trilemma.bench.cell import Cell
from trilemma.bench.cells.attending import attention_cells
from trilemma.bench.cells.convolving import conv3x3_cells
from trilemma.bench.cells.normalization import group_norm_act_backward_cells, group_norm_act_cells
from trilemma.bench.cells.normals import keyed_normal_cells
from trilemma.bench.cells.stepping import linear_step_cells
from trilemma.bench.cells.transforming import (
    glu_backward_cells,
    glu_cells,
    layer_norm_backward_cells,
    layer_norm_cells,
)

ALL_CELLS: Final[dict[str, Callable[[], Iterator[Cell]]]] = {
    "linear_step": linear_step_cells,
    "keyed_normal": keyed_normal_cells,
    "group_norm_act": group_norm_act_cells,
    "group_norm_act_backward": group_norm_act_backward_cells,
    "layer_norm": layer_norm_cells,
    "layer_norm_backward": layer_norm_backward_cells,
    "glu": glu_cells,
    "glu_backward": glu_backward_cells,
    "attention": attention_cells,
    "conv3x3": conv3x3_cells,
}
