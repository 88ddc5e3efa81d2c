"""Reference pages made from components themselves, so that they cannot drift from them."""

from trilemma.pages.sampler import index_page, sampler_page
from trilemma.registry.docstring import Docstring, read_docstring

__all__ = ["Docstring", "index_page", "read_docstring", "sampler_page"]
