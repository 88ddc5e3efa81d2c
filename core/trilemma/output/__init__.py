"""Files of samples: pictures, animations, an .npz, a folder, each with its provenance and each whole or absent."""

from trilemma.output.animation import write_animation
from trilemma.output.archive import write_npz
from trilemma.output.destination import Destination, Sink, destination
from trilemma.output.folder import SampleFolder
from trilemma.output.indices import format_indices, parse_indices
from trilemma.output.photo import write_jpeg_grid
from trilemma.output.picture import write_png_grid
from trilemma.output.provenance_reading import provenance

__all__ = [
    "Destination",
    "SampleFolder",
    "Sink",
    "destination",
    "format_indices",
    "parse_indices",
    "provenance",
    "write_animation",
    "write_jpeg_grid",
    "write_npz",
    "write_png_grid",
]
