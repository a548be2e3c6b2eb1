"""Features of clips in safetensors files, and the index that says which file holds which clip.

Like the MP4 tree, the files are no output that a rule declares: a job that is killed goes on with those that are
there. Each appears whole or not at all, and records under which fingerprint and of which clips it was made.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import safe_open
from torch import Tensor

from ..collection.units import Unit
from ..core import state
from ..core.files import PART, atomic_write
from ..core.fingerprint import prefix
from ..core.layout import Layout
from .pooling import POOLS
from .shards import grouped


class Features:
    """The features of a unit's clips under one fingerprint; files of other fingerprints are left alone."""

    def __init__(self, top: Path, unit: Unit, fingerprint: str) -> None:
        """Read which clips the files of each bucket of `unit`, below `top`, hold; one that is damaged is set aside."""
        self.top, self._bucket = top, unit.bucket
        self._prefix = prefix(fingerprint)
        self._made: dict[str, tuple[str, Path]] = {}  # key -> identity of the clip, file in the clip's bucket
        for bucket in unit.buckets:
            for part in (top / bucket).glob(f"*{PART}"):  # of a run that was killed; this one holds the lock
                part.unlink()
            for path in sorted((top / bucket).glob(f"{self._prefix}-*.safetensors")):
                identities = state.load(path, _identities) or {}
                self._made |= {
                    key: (identity, path) for key, identity in identities.items() if unit.bucket(key) == bucket
                }

    def have(self, identities: Mapping[str, str]) -> set[str]:
        """The keys of the clips whose features are there, made of the clips as they are now."""
        return {key for key, identity in identities.items() if key in self._made and self._made[key][0] == identity}

    def add(self, fresh: Mapping[str, Tensor], identities: Mapping[str, str]) -> None:
        """Save features, by key, in new files, but for those that are there already.

        Raises `OSError` if the disk is full.
        """
        there = self.have({key: identities[key] for key in fresh})
        known = {key: identities[key] for key in fresh if key not in there}
        for bucket, keys in grouped(known, self._bucket).items():
            path = self.top / bucket / f"{self._prefix}-{time.time_ns():020d}.safetensors"
            of = {key: known[key] for key in keys}
            content = safetensors.torch.save({key: fresh[key] for key in keys}, {"identities": json.dumps(of)})
            with atomic_write(path) as part:
                part.write_bytes(content)
            self._made |= {key: (identity, path) for key, identity in of.items()}

    def write_index(self, path: Path, identities: Mapping[str, str]) -> None:
        """Write which file holds which clip: tab-separated `key` and `file`, relative to the directory of `path`."""
        rows = [f"{key}\t{self._made[key][1].relative_to(path.parent)}" for key in sorted(self.have(identities))]
        with atomic_write(path) as part:
            part.write_text("\n".join(["key\tfile", *rows, ""]), encoding="utf-8")

    def summary(self, identities: Mapping[str, str]) -> dict[str, object]:
        """The dtype and shape of one clip's features, and the bytes of all of them; empty where there are none."""
        keys = sorted(self.have(identities))
        if not keys:
            return {}
        with safe_open(self._made[keys[0]][1], "pt") as file:
            one = file.get_tensor(keys[0])
        return {
            "dtype": str(one.dtype).removeprefix("torch."),
            "shape": list(one.shape),
            "bytes": len(keys) * one.nbytes,
        }


def _identities(path: Path) -> dict[str, str]:
    """Of which clips a file holds features, by key. Raises some exception where it is damaged."""
    with safe_open(path, "pt") as file:
        identities: dict[str, str] = json.loads(file.metadata()["identities"])
        if identities.keys() != set(file.keys()) or not all(isinstance(one, str) for one in identities.values()):
            raise ValueError("its clips are others than it says")
    return identities


def update_indices(
    layout: Layout, model: str, unit: Unit, fingerprint: str, identities: Mapping[str, str], features: Features | None
) -> None:
    """Make every index of a unit list the clips of `identities`, which are those that have a vector now.

    `features` are those that this job keeps, if any. The index of another `embed.pool`, from an earlier run, is
    written anew where all these clips have features of that pooling, and deleted where they do not.
    """
    for pooling in POOLS:
        index = layout.feature_index(pooling, model, unit.name)
        top = layout.feature_files(pooling, model)
        if features and features.top == top:
            features.write_index(index, identities)
        elif index.exists():
            other = Features(top, unit, fingerprint)
            if other.have(identities) == identities.keys():
                other.write_index(index, identities)
            else:
                index.unlink()
