"""Files of samples: a PNG grid, an .npz, or a folder of PNGs, each with its provenance and each whole or absent."""

from trilemma.output.archive import write_npz
from trilemma.output.atomic import check_writable
from trilemma.output.folder import SampleFolder
from trilemma.output.picture import write_png_grid
from trilemma.output.provenance import provenance

__all__ = ["SampleFolder", "check_writable", "provenance", "write_npz", "write_png_grid"]
