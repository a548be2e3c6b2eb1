"""Where everything lies: every path below results/."""

import re
from dataclasses import dataclass
from pathlib import Path

MERGED = "all"  # in the place of the folder in the name of the merged file
DICOM = "dicom"  # in the place of a size: the clips as they are, of which no MP4 is made
MASKED = "masked"  # the directory of MP4 files that were masked when they were made


def masked(size: int | str) -> str:
    """In the place of a size: the MP4 files of that size which were masked when they were made."""
    return f"{MASKED}/{size}"


@dataclass(frozen=True)
class Layout:
    """The directory tree of a run's results.

    `size` is the edge of the square frames in pixels, or what `masked` makes of it; `clips` is such a size or `DICOM`,
    `model` a name in the registry, `folder` that of a folder of the collection. In the rules they are Snakemake's
    wildcards: `RESULTS.vectors("{model}", "{folder}")`.
    """

    root: Path = Path("results")

    # --- MP4 files ---

    def mp4(self, size: int | str, folder: str = "") -> Path:
        """The tree of a folder's MP4 files, or of those of all units; no rule declares it."""
        return (self.root if str(size).startswith(f"{MASKED}/") else self.root / "mp4") / str(size) / folder

    def manifest(self, clips: int | str, folder: str) -> Path:
        """One row for every file of a folder."""
        return self._manifests(clips) / f"{folder}.manifest.tsv"

    def manifest_digest(self, clips: int | str, folder: str) -> Path:
        """The SHA-256 of the manifest."""
        return self._manifests(clips) / f"{folder}.manifest.sha256"

    def _manifests(self, clips: int | str) -> Path:
        return self.root / DICOM if clips == DICOM else self.mp4(clips)

    # --- vectors ---

    def embeddings(self) -> Path:
        """The directory of all embedding files."""
        return self.root / "embeddings"

    def vectors(self, model: str, folder: str) -> Path:
        """The embedding file of a folder."""
        return self.embeddings() / f"{model}_embeddings_{folder}.pt"

    def merged(self, model: str) -> Path:
        """The embedding file of all folders."""
        return self.vectors(model, MERGED)

    def folder_vectors(self) -> dict[tuple[str, str], Path]:
        """The folders' embedding files that are there, by model and folder, in order of their names."""
        found = {}
        for path in sorted(self.embeddings().glob("*.pt")):
            match = re.fullmatch(r"(.+)_embeddings_(.+)\.pt", path.name)
            if match and match[2] != MERGED:
                found[match[1], match[2]] = path
        return found

    def run_record(self, model: str, folder: str) -> Path:
        """How a folder's vectors were made; no rule declares it, so it outlives a failure."""
        return self.vectors(model, folder).with_suffix(".json")

    def failed_clips(self, model: str, folder: str) -> Path:
        """The clips without a vector; no rule declares it, so it outlives the failure that it explains."""
        return self.vectors(model, folder).with_suffix(".failed.tsv")

    def features(self, pool: str) -> Path:
        """What `embed.pool` keeps besides vectors, of all models."""
        return self.root / "features" / pool

    def feature_files(self, pool: str, model: str) -> Path:
        """The directory of a model's features, with one for each bucket; no rule declares what lies in it."""
        return self.features(pool) / model

    def feature_index(self, pool: str, model: str, folder: str) -> Path:
        """Which file of `feature_files` holds which clip."""
        return self.features(pool) / model / f"{folder}.index.tsv"

    # --- pages and exports ---

    def page(self, model: str) -> Path:
        """The quality page of a model."""
        return self.root / "qc" / f"{model}.html"

    def page_numbers(self, model: str) -> Path:
        """The numbers of a model's quality page, for machines."""
        return self.page(model).with_suffix(".json")

    def index_page(self) -> Path:
        """The page that sets all models side by side."""
        return self.page("index")

    def index_numbers(self) -> Path:
        """The numbers of the index page, for machines."""
        return self.page_numbers("index")

    def record_list_summary(self) -> Path:
        """The record list against the disk, counts by folder."""
        return self.root / "record_list" / "summary.tsv"

    def parquet(self, model: str) -> Path:
        """The directory of a model's Parquet files."""
        return self.root / "parquet" / model

    def card(self, model: str) -> Path:
        """The data set card of a model's Parquet files."""
        return self.parquet(model) / "README.md"

    def study_vectors(self, model: str) -> Path:
        """A model's vectors, one a study."""
        return self.root / "study" / f"{model}.parquet"

    def atlas(self, model: str) -> Path:
        """A model's clips as points on a plane, for Embedding Atlas."""
        return self.root / "atlas" / f"{model}.parquet"

    def matrix(self, model: str) -> Path:
        """A model's merged vectors as one NumPy array."""
        return self.merged(model).with_suffix(".npy")

    def matrix_keys(self, model: str) -> Path:
        """The key of each row of the matrix."""
        return self.merged(model).with_suffix(".keys.tsv")

    def label(self, name: str) -> Path:
        """The table of a label, one row a study."""
        return self.root / "labels" / f"{name}.csv"

    def labels_left_out(self) -> Path:
        """How many studies have no value of a label, by reason."""
        return self.root / "labels" / "left_out.tsv"

    def evaluated_clips(self, model: str) -> Path:
        """What is known of a model's clips, which all tasks read."""
        return self.root / "evaluate" / f"{model}.clips.parquet"

    def evaluation(self, task: str, model: str) -> Path:
        """What a model's vectors say of a task, in numbers."""
        return self.root / "evaluate" / task / f"{model}.json"

    def evaluation_predictions(self, task: str, model: str) -> Path:
        """The predictions of the units that were tested."""
        return self.evaluation(task, model).with_suffix(".predictions.parquet")

    def evaluation_head(self, task: str, model: str) -> Path:
        """The fitted head."""
        return self.evaluation(task, model).with_suffix(".head.safetensors")

    def evaluation_page(self, task: str) -> Path:
        """The page of a task."""
        return self.root / "evaluate" / task / "index.html"

    def evaluation_index(self) -> Path:
        """The page that sets tasks and models side by side; its numbers lie beside it, as `.json`."""
        return self.root / "evaluate" / "index.html"

    def text_audit(self) -> Path:
        """The page of MP4 files in which text can be read; its numbers lie beside it, as `.json`."""
        return self.root / "audit" / "text.html"

    def predictions(self) -> Path:
        """The directory of tables that heads make of vectors; no rule declares what lies in it."""
        return self.root / "predictions"

    def physionet(self) -> Path:
        """The list of what was fetched from PhysioNet."""
        return self.root / "physionet.tsv"

    def rekeyed(self) -> Path:
        """What became of each file under the names of a new record list."""
        return self.root / "rekey.tsv"

    def model_of(self, path: str) -> str | None:
        """The model in the name of a result for which there is a rule, known or not; None where it is none of these."""
        model, any_ = "<model>", "<any>"
        named = (
            *(self.vectors(model, any_), self.feature_index(any_, model, any_), self.page(model)),
            *(self.page_numbers(model), self.card(model), self.study_vectors(model)),
            *(self.matrix(model), self.matrix_keys(model), self.evaluation(any_, model)),
            *(self.evaluation_predictions(any_, model), self.evaluation_head(any_, model)),
        )
        if Path(path) in (self.index_page(), self.index_numbers()):
            return None
        for form in named:
            pattern = re.escape(str(form)).replace(model, "([^/]+)").replace(any_, "[^/]+")
            if match := re.fullmatch(pattern, str(Path(path))):
                return match[1]
        return None

    # --- what jobs remember, and say ---

    def state(self, stage: str, *parts: int | str) -> Path:
        """What a stage's jobs remember, or one job where `parts` say which; no rule declares it."""
        return self.root.joinpath("state", stage, *map(str, parts))

    def checkpoint_digests(self) -> Path:
        """The SHA-256 of checkpoints, shared by all jobs."""
        return self.state("checkpoints")

    def logs(self) -> Path:
        """The directory of all logs."""
        return self.root / "logs"

    def log(self, rule: str, *parts: int | str) -> Path:
        """The log of a job, or of a rule without wildcards."""
        path = self.logs().joinpath(rule, *map(str, parts))
        return path.with_name(f"{path.name}.log")

    def kept_log(self, log: Path) -> Path:
        """The second name of a job's log, which outlives its retries; no rule declares it."""
        return self.state("logs") / log.relative_to(self.logs())

    def benchmark(self, rule: str, *parts: int | str) -> Path:
        """Snakemake's table of a job's time and memory."""
        path = self.root.joinpath("benchmarks", rule, *map(str, parts))
        return path.with_name(f"{path.name}.tsv")
