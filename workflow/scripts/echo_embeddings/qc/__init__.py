"""The quality page of a model's embeddings, the index of all models, and the comparison of two files.

The modules, lowest layer first; a module imports only from those above it in this list:

    base          what the modules share
    tables        what the stages left behind, read
    moments       one pass over all vectors: what each holds, sums and counts of each folder
    provenance    where the vectors come from
    accounting    where every file went
    privacy       what of all this names somebody, hashed or left out
    components    principal components
    statistics    folders, and their drift from the rest
    near          groups of vectors that are nearly equal
    health        vectors and dimensions with a defect
    pairs         pairs of clips by what they share
    similarity    cosine similarity between clips
    pictures      strips of frames of the clips worth a look
    palette       colours that stay apart
    sampling      which clips one can look at one by one
    closest       nearest clips among a few thousand
    columns       what is known of clips, column by column
    projection    clips on a plane
    knows         what of a clip its neighbours tell
    explore       what the page's canvas shows
    atlas         all clips on a plane, for another program
    report        all of it, measured
    causes        why two sets of vectors may differ
    agreement     two sets of vectors of the same clips
    plots         numbers -> pictures
    writing       numbers -> JSON, and with a template HTML
    page          the page of a model, and that of two files compared
    index         the page that sets all models side by side

Nothing is imported here: the index needs neither torch nor scikit-learn, which take seconds.
"""
