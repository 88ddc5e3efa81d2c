"""Files of samples: a PNG grid, an .npz, or a folder of PNGs, each with its provenance and each whole or absent."""

from trilemma.output.archive import write_npz
from trilemma.output.destination import Destination, Sink, destination
from trilemma.output.folder import SampleFolder
from trilemma.output.indices import format_indices, parse_indices
from trilemma.output.picture import write_png_grid
from trilemma.output.provenance import provenance

__all__ = [
    "Destination",
    "SampleFolder",
    "Sink",
    "destination",
    "format_indices",
    "parse_indices",
    "provenance",
    "write_npz",
    "write_png_grid",
]
