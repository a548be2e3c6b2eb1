# The configuration, and what the rules ask of it. Nothing here imports torch or pydicom.

import functools
import re
import sys
from dataclasses import asdict

from echo_embeddings.collection.source import Collection
from echo_embeddings.core import configuration, corrections, registry, settings
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.files import free_bytes
from echo_embeddings.core.keys import key_of_ids
from echo_embeddings.core.layout import DICOM, Layout, masked
from echo_embeddings.encoders import contract, kinds
from echo_embeddings.evaluate.definitions import definitions
from echo_embeddings.evaluate.tasks import selecting, tasks
from echo_embeddings.tables import selection
from echo_embeddings.tools import estimate, models, slurm, tesseract


def check_configuration():
    """The model registry; and why there is no collection, which stops only who asks for it: rules can be listed."""
    try:
        return configuration.check(config), ""
    except UserError as error:
        try:
            return configuration.check(config, data=False), str(error)
        except UserError:
            raise error from None  # which says all that is wrong at once


try:
    configuration.check_files(CONFIGFILES)
    REGISTRY, NO_FOLDERS = check_configuration()
    COLLECTION = Collection.of(config)
    IDS_KEY = key_of_ids(config)
    TABLES = settings.tables(config)
    selection.check(TABLES, config["export"]["columns"], config["study"]["where"])
    SELECTING = selection.used(TABLES)
    LABELS = definitions(config["labels"]["definitions"])
    TASKS = tasks(config)
    IDENTIFYING = selection.used(TABLES, identities=True)  # what decides the selection, or says whose a file is
    PAGED = selection.paged(TABLES)  # the quality pages show whatever is there
except UserError as error:
    raise WorkflowError(str(error))

RESULTS = Layout()
FOLDERS = {}
try:
    if not NO_FOLDERS:
        FOLDERS = COLLECTION.units()
except UserError as error:
    # Right before the target physionet has fetched them.
    fetch = "; `snakemake physionet` fetches what physionet.include names" if config["physionet"]["version"] else ""
    NO_FOLDERS = f"{error}{fetch}"

for target in TARGETS:
    model = RESULTS.model_of(target)
    if model and model not in REGISTRY:
        unknown = registry.unknown(model, REGISTRY, registry.path(config["models_file"]))
        raise WorkflowError(f"target {target}: the model {unknown}")


wildcard_constraints:
    size="|".join(sorted({str(entry["resolution"]) for entry in REGISTRY.values()})),
    # Any name but "all": that is the merged file.
    folder=r"[^/]{1,2}|(?!all)[^/]{3}|[^/]{4}[^/]*",
    task="|".join(map(re.escape, TASKS)) or "(?!)",
    model=f"(?:{'|'.join(map(re.escape, REGISTRY))})(?:{registry.DIRECT})?",


def stop(message):
    """End Snakemake with one line, in functions that it calls: there it wraps a WorkflowError into ten."""
    sys.exit(str(message))


def this_attempt(wildcards, attempt):
    """Which attempt at the job this is, for its log and for what no further one can achieve; see core/job.py."""
    return attempt


@functools.cache
def surveys():
    """What all units look like now, by one walk through the collection; a job looks at its own alone."""
    return COLLECTION.surveys()


@functools.cache  # Snakemake asks several times a job
def survey(folder):
    """What the folder or unit looks like now: its fingerprint and its number of files."""
    if NO_FOLDERS:
        stop(NO_FOLDERS)
    try:
        if COLLECTION.division and MAIN_PROCESS:
            return surveys()[COLLECTION.unit(folder).name]
        return (FOLDERS.get(folder) or COLLECTION.unit(folder)).survey()
    except UserError as error:
        stop(error)


def clips(*folders):
    """How many clips the folders hold at most, for estimates of time and memory."""
    files = [survey(folder).files for folder in folders]
    return sum(min(n, config["limit"]) if config["limit"] else n for n in files)


@functools.cache  # Snakemake asks several times a job
def model_of(name):
    """What decides the vectors of the model, which can be fed with what the collection holds and gives what is asked."""
    model = settings.model(config, REGISTRY, name)
    reason = settings.unfit(name, model.recipe, bool(config["mp4_dir"])) or contract.misfit(model, POOL)
    if reason:
        stop(reason)
    return model


def facts_of(name):
    """What is to be known of the model before its vectors are used, in words."""
    return models.facts(config, REGISTRY, name)


def checkpoint_path(model):
    """Where the model's checkpoint is, or will be."""
    return str(registry.place(config, REGISTRY[model]))


@functools.cache  # the file is opened, and thousands of folders have one
def checked_checkpoint(model):
    """The path of the model's checkpoint, which is there and may be one, or can be fetched."""
    path = checkpoint_path(model)
    if path in ABSENT_WEIGHTS:
        return path
    if kinds.absent(path):
        get = REGISTRY[model]["obtain"] or "the registry has no url to fetch it from"
        stop(f"model {model}: no checkpoint {path}: {get}; put the file there, or set weights_dir to where it lies")
    if reason := kinds.refusal(path):
        stop(f"model {model}: {path}: {reason}")
    return path


def checkpoint(wildcards):
    """The checkpoint of the job's model."""
    return checked_checkpoint(wildcards.model)


def physionet_version(wildcards):
    """The version to fetch from PhysioNet, which the configuration must say."""
    version = config["physionet"]["version"]
    if version is None:
        stop('config: physionet.version: say which version to fetch, in quotes: "1.0"')
    return version


def folder_vectors(wildcards):
    """The folders' embedding files of a model."""
    if NO_FOLDERS:
        stop(NO_FOLDERS)
    return [RESULTS.vectors(wildcards.model, folder) for folder in FOLDERS]


def files_of(tables):
    """The paths of tables, which must be there."""
    for table in selection.absent(tables):
        stop(f"config: {table.name}: no file {table.file!r} in {Path.cwd()}")
    return [table.file for table in tables.all]


def record_list(wildcards):
    """The record list, which must be there."""
    return files_of(settings.Tables(record_list=TABLES.record_list))


def selecting_files(wildcards):
    """The tables that decide which clips are selected, which must be there."""
    return files_of(SELECTING)


def identifying_files(wildcards):
    """The tables that decide which clips are selected or say whose they are, which must be there."""
    return files_of(IDENTIFYING)


def paged_files(wildcards):
    """The tables that decide which clips are selected or say whose they are, which must be there, and others that are."""
    return files_of(PAGED)


def joining_files(wildcards):
    """All tables, which must be there."""
    return files_of(TABLES)


def measured_files(wildcards):
    """The tables that labels are made from, which must be there."""
    tables = {"labels.measurements": config["labels"]["measurements"], "study_list": config["study_list"]}
    for name, file in tables.items():
        if file is None:
            stop(f"config: {name}: labels are made from it; name the file that PhysioNet has (docs/labels.md)")
        if not Path(file).is_file():
            stop(f"config: {name}: no file {file!r} in {Path.cwd()}")
    return dict(zip(("measurements", "study_list"), tables.values(), strict=True))


def label_table(wildcards):
    """The table with a task's labels, which must be there, or be one that `labels` makes."""
    task = TASKS[wildcards.task]
    if not Path(task.file).is_file() and Path(task.file) not in map(RESULTS.label, LABELS):
        stop(f"config: {task.table.name}: no file {task.file!r} in {Path.cwd()}")
    try:
        if Path(task.file).is_file():
            selection.taken(task.table)
    except UserError as error:
        stop(error)
    return task.file


def evaluations(wildcards):
    """The pages of all tasks."""
    if not TASKS:
        stop("config: evaluate.tasks: name what is to be predicted, and the table that has it (docs/evaluate.md)")
    return [RESULTS.evaluation_index(), *map(RESULTS.evaluation_page, TASKS)]


def pictured_manifests(wildcards):
    """What changes when the manifests do that name the clips of pictures, where there are such."""
    if not config["qc"]["pictures"]:
        return []
    kinds = {str(model_of(name).clips) for name in config["models"]}
    return [RESULTS.manifest_digest(kind, folder) for kind in sorted(kinds) for folder in FOLDERS]


def audited_kinds():
    """The MP4 files that models are fed with, as paths of `RESULTS` say it."""
    return sorted({str(model_of(name).clips) for name in config["models"]} - {DICOM})


def audited_manifests(wildcards):
    """What changes when the manifests of MP4 files do; there must be such files, and what reads text in them."""
    if NO_FOLDERS:
        stop(NO_FOLDERS)
    if not audited_kinds():
        stop("audit_text: the models are fed straight from DICOM, and there are no MP4 files to look at")
    try:
        tesseract.check()
    except UserError as error:
        stop(error)
    return [RESULTS.manifest_digest(kind, folder) for kind in audited_kinds() for folder in FOLDERS]


def check_slurm():
    """Stop where there is no SLURM, or an earlier run's jobs are still at work."""
    try:
        slurm.check(Path(".snakemake/slurm_logs"))
    except UserError as error:
        end_executor()
        stop(error)


def fed_with(wildcards):
    """What a model is fed with: MP4 files of a size, or DICOM; as paths of `RESULTS` say it."""
    return str(model_of(wildcards.model).clips)


def manifest_digest(wildcards, folder=None):
    """The file that changes when the manifest does that the model's clips stand in; of one folder."""
    return RESULTS.manifest_digest(fed_with(wildcards), folder or wildcards.folder)


# How keys of the merged file and folds of patients are made.
MERGING = {"prefix_folder": config["merge"]["prefix_folder"]} | {n: config["evaluate"][n] for n in ("folds", "seed")}

# What `embed` makes besides vectors.
POOL = config["embed"]["pool"]
FEATURES = {} if POOL == "mean" else {"features": RESULTS.feature_index(POOL, "{model}", "{folder}")}


def features(wildcards):
    """The indices of features of the models in `models`."""
    return expand(list(FEATURES.values()), model=config["models"], folder=list(FOLDERS))


def say_features():
    """Say how much disk the features of the models in `models` will take, before any is made."""
    sizes = {name: estimate.feature_bytes(clips(*FOLDERS), model_of(name), POOL) for name in config["models"]}
    free = free_bytes(RESULTS.features(POOL).parent, RESULTS.root, ".")
    logger.info(estimate.features_line(POOL, sizes, clips(*FOLDERS), free))


def embed_mb(wildcards):
    """Estimated memory of a job, MB."""
    keys, model = config["embed"], model_of(wildcards.model)
    return estimate.embed_mb(
        clips(wildcards.folder),
        model,
        contract.size(model),
        device=keys["device"],
        batch_size=settings.batch_size(config, REGISTRY, model.name),
        num_workers=keys["num_workers"],
        pool=POOL,
    )


def embed_minutes(wildcards, threads):
    """Estimated time of a job, minutes."""
    keys, model = config["embed"], model_of(wildcards.model)
    return estimate.embed_minutes(
        clips(wildcards.folder),
        model,
        contract.size(model),
        device=keys["device"],
        num_workers=keys["num_workers"],
        threads=threads,
    )


def exported_mb(wildcards, attempt):
    """Memory of a job that reads all vectors block by block, and joins all tables."""
    return attempt * estimate.merged_mb(clips(*FOLDERS), REGISTRY[wildcards.model]["embed_dim"])


def say_failure(number, message, logs):
    """End what Snakemake says of a failed SLURM job with one line: which job, why, and where to read on."""
    if number is not None or slurm.refusal(message):
        logger.error(slurm.failure_line(number, message, logs))


on_job_error(say_failure)
