"""A small collection of vectors to be spoilt, and what its page says."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from echo_embeddings.core import manifest
from echo_embeddings.core.vectors import write_vectors
from echo_embeddings.qc.base import Check
from echo_embeddings.qc.page import make_model_page, numbers_of
from echo_embeddings.qc.report import Options, Report, measure
from echo_embeddings.qc.tables import FolderFiles

Matrix = npt.NDArray[np.float32]


DIM = 16
# What the registry says of a model, for its line in the index.
FACTS = {"family": "V-JEPA 2", "input": "16 x 64 x 64, guide", "licence": "MIT", "commercial use": "yes"}


class Collection:
    """Two folders of converted clips with vectors in clusters; change it, then `page` it."""

    def __init__(self, root: Path, clips: int = 20, dim: int = DIM) -> None:
        self.root = root
        self.folders = {"p10": self.keys("p10", clips // 2), "p11": self.keys("p11", clips - clips // 2)}
        generator = np.random.default_rng(7)
        self.matrix: Matrix = generator.normal(1, 1, (clips, dim)).astype(np.float32)
        self.embedded = [key for keys in self.folders.values() for key in keys]
        self.failed: dict[str, dict[str, str]] = {}
        self.others: list[manifest.Row] = []
        self.runs = {folder: self.run(len(keys), dim) for folder, keys in self.folders.items()}

    @staticmethod
    def keys(folder: str, clips: int) -> list[str]:
        return [f"{folder}000001/s9{i:07}/9{i:07}_0001.mp4" for i in range(clips)]

    @staticmethod
    def run(clips: int, dim: int) -> dict[str, Any]:
        return {
            "model": "vitl",
            "embed_dim": dim,
            "num_frames": 16,
            "precision": "bf16",
            "entry": "target_encoder",
            "checkpoint_sha256": "a" * 64,
            "weights": None,
            "device": "cpu",
            "versions": {"python": "3.11", "torch": "2.8"},
            "seconds": 1.5,
            "counts": {"converted": clips, "embedded": clips, "reused": 0, "failed": 0, "short": 0},
        }

    def files(self) -> dict[str, FolderFiles]:
        found = {}
        for folder, keys in self.folders.items():
            ends = (".manifest.tsv", "", ".json", ".failed.tsv")
            files = FolderFiles(*(self.root / f"{folder}{end}" for end in ends))
            rows = [manifest.Row(key.replace(".mp4", ".dcm"), key, manifest.CONVERTED, "", 16) for key in keys]
            manifest.write(files.manifest, rows + self.others)
            if folder in self.runs:
                files.run.write_text(json.dumps(self.runs[folder]))
            if folder in self.failed:
                lines = [f"{key}\t{reason}\n" for key, reason in self.failed[folder].items()]
                files.failed.write_text("key\treason\n" + "".join(lines))
            found[folder] = files
        return found

    def report(self, prefix_folder: bool = False) -> Report:
        """What the page would show, nothing drawn."""
        write_vectors(self.root / "all.pt", self.embedded, torch.from_numpy(self.matrix))
        return measure("vitl", self.root / "all.pt", self.files(), Options(prefix_folder=prefix_folder))

    def numbers(self, **options: Any) -> dict[str, Any]:
        """The numbers of the page, as its JSON file has them; nothing drawn."""
        write_vectors(self.root / "all.pt", self.embedded, torch.from_numpy(self.matrix))
        return json.loads(
            json.dumps(numbers_of(measure("vitl", self.root / "all.pt", self.files(), Options(**options))))
        )

    def page(self, model: str = "vitl", **options: Any) -> tuple[dict[str, Any], str]:
        """The numbers and the HTML of the page."""
        write_vectors(self.root / "all.pt", self.embedded, torch.from_numpy(self.matrix))
        output = self.root / "qc" / f"{model}.html"
        make_model_page(model, self.root / "all.pt", self.files(), output, Options(**options))
        return json.loads(output.with_suffix(".json").read_text()), output.read_text()


def levels(numbers: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["level"] for check in numbers["checks"]}


def check(report: Report, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


class Links(HTMLParser):
    """The ids of a page, and every address that it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [values[name] or "" for name in ("src", "href", "srcset", "data") if name in values]
        self.ids += [values["id"] or ""] if "id" in values else []
        self.images += [values] if tag == "img" else []
