"""DICOM echocardiograms to frozen V-JEPA 2 video embeddings.

Plain Python that knows nothing of Snakemake. The rooms, lowest floor first; a module imports
only from those above it in this list:

    files                   whole-or-absent files, names that any tool can carry, user errors, who has a folder
    safe_path               a path that comes from outside, below the directory where it belongs
    job                     what every Snakemake script of this workflow does around its one call
    slurm                   what must be so before jobs are given to SLURM, and what is said of one that failed
    recipe                  how a clip is shown to an encoder, as data
    settings                the configuration and the model registry, and what of them decides results
    command                 what the commands beside Snakemake do around their one call
    architectures           sizes of the encoders, and what follows from them
    models                  the registry as a table
    estimate                what a job will ask of a cluster: memory and time
    archive                 DICOM packed in zip and tar files
    collection              which files a folder of DICOM holds
    progress                how far a job is
    download                one file over HTTP, whole or not there
    physionet               tables and chosen DICOM of a PhysioNet project
    manifest                the ledger: one row for every file of a folder
    selection               which clips: an expression over the columns of manifest and tables
    status                  how far all jobs are
    tables                  manifests, record list, study list and further tables, joined
    inventory               the record list against the disk
    dicom                   DICOM file -> header, RGB frames one at a time
    video                   frames <-> MP4 file
    clip                    which frames, and pixels -> model input
    mask                    what of a picture is shown, and in which shape
    store                   embedding files: write, read, merge
    vjepa                   the encoder, and nothing else
    huggingface             the same weights in the form of Hugging Face
    checkpoint              checkpoint -> encoder, strictly
    pool                    what is kept of an encoder's tokens: vectors and features
    workers                 processes that work on one file after another, and can be killed
    convert                 a folder of DICOM -> MP4 tree and manifest
    probe                   a folder of MP4 that are there already -> manifest
    loader                  MP4 files -> chunks of sampled frames, by worker processes
    extract                 the encoder on a device: batches, memory, compilation
    shards                  vectors made so far, kept through any kill
    features                features made so far, and their index
    cards                   one GPU a job
    record                  how a folder's vectors were made
    embed                   an MP4 tree and an encoder -> embeddings
    verify                  one known clip through the whole way, against what the registry records
    rekey                   what was made under old names, under new ones
    export                  embedding files and tables -> Parquet, and a memory-mapped matrix
    card                    what a person and a program read of a Parquet data set
    study                   one vector a study
    doctor                  what a run needs, and what it will cost
    qc                      numbers, pictures, page; its own rooms stand in its docstring
    demo                    a small collection and a small model made from public packages

The first thirteen, `manifest` and `selection` are imported while the workflow is parsed, so they use nothing that is
slow to import.
"""
