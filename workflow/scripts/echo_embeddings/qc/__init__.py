"""The quality page of a model's embeddings, the index of all models, and the comparison of two files.

The modules, lowest layer first; a module imports only from those above it in this list:

    base          what the modules share
    tables        what the stages left behind, read
    moments       one pass over all vectors: what each holds, sums and counts of each folder
    provenance    where the vectors come from
    accounting    where every file went
    components    principal components
    statistics    folders, and their drift from the rest
    near          groups of vectors that are nearly equal
    health        vectors and dimensions with a defect
    pairs         pairs of clips by what they share
    similarity    cosine similarity between clips
    pictures      strips of frames of the clips worth a look
    report        all of it, measured
    agreement     two sets of vectors of the same clips
    plots         numbers -> pictures
    page          numbers and pictures -> HTML and JSON
"""

from .page import make_comparison, make_index, make_model_page
from .provenance import Training
from .report import Options
from .tables import FolderFiles, folder_files

__all__ = ["FolderFiles", "Options", "Training", "folder_files", "make_comparison", "make_index", "make_model_page"]
