"""The quality page of a model's embeddings: numbers computes, plots draws, page renders and writes."""

from .numbers import FolderFiles
from .page import make_index, make_model_page

__all__ = ["FolderFiles", "make_index", "make_model_page"]
