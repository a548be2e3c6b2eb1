"""The quality page of a model's embeddings, the index of all models, and the comparison of two files.

    base          what the rooms share                 similarity   pairs of clips, by what they share
    moments       one pass: what each vector holds     pictures     strips of frames
    tables        what the stages left behind          report       all of it, measured
    provenance    where the vectors come from          agreement    two sets of vectors of the same clips
    accounting    where every file went                plots        numbers -> pictures
    components    principal components                 page         report -> HTML and JSON
    health        vectors with a defect
    statistics    folders, and their drift
"""

from .tables import FolderFiles

__all__ = ["FolderFiles"]
