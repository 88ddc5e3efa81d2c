"""Reference pages made from components themselves, so that they cannot drift from them."""

from trilemma.pages.docstring import Docstring, read_docstring
from trilemma.pages.sampler import index_page, sampler_page

__all__ = ["Docstring", "index_page", "read_docstring", "sampler_page"]
