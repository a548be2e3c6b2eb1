"""Features of clips in safetensors files, and the index that says which file holds which clip.

Like the MP4 tree, the files are no output that a rule declares: a job that is killed goes on with those that are
there. Each appears whole or not at all, and says under which fingerprint and of which clips it was made.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..core.errors import UserError
from ..core.files import PART, atomic_write
from ..core.fingerprint import prefix
from ..core.names import one_line


class Features:
    """The features of a folder's clips under one fingerprint; those of others stay where they are, unseen."""

    def __init__(self, directory: Path, fingerprint: str) -> None:
        """Look at what is in `directory`. Raises `UserError` if a file there cannot be read."""
        self._directory = directory
        self._prefix = prefix(fingerprint)
        self._made: dict[str, tuple[str, str]] = {}  # key -> identity of the clip, name of the file
        for part in directory.glob(f"*{PART}"):  # of a run that was killed; this one holds the folder's lock
            part.unlink()
        for path in sorted(directory.glob(f"{self._prefix}-*.safetensors")):
            try:
                with safe_open(path, "pt") as file:
                    identities = json.loads(file.metadata()["identities"])
            except (SafetensorError, LookupError, TypeError, ValueError) as error:
                raise UserError(
                    f"{path}: cannot be read as a file of features: {one_line(error)[:200]}; "
                    "delete it, and its clips are computed again"
                ) from error
            self._made |= {key: (identity, path.name) for key, identity in identities.items()}

    def have(self, identities: Mapping[str, str]) -> set[str]:
        """The keys of those clips that are what they were when their features were made."""
        return {key for key, identity in identities.items() if key in self._made and self._made[key][0] == identity}

    def add(self, fresh: Mapping[str, Tensor], identities: Mapping[str, str]) -> None:
        """Save features, by key, in a file of their own; those that are there already are left as they are.

        Raises `OSError` if the disk is full.
        """
        there = self.have({key: identities[key] for key in fresh})
        known = {key: identities[key] for key in fresh if key not in there}
        if not known:
            return
        path = self._directory / f"{self._prefix}-{time.time_ns():020d}.safetensors"
        content = safetensors.torch.save({key: fresh[key] for key in known}, {"identities": json.dumps(known)})
        with atomic_write(path) as part:
            part.write_bytes(content)
        self._made |= {key: (identity, path.name) for key, identity in known.items()}

    def write_index(self, path: Path, identities: Mapping[str, str]) -> None:
        """Write which file holds which clip: tab-separated `key` and `file`, relative to the folder of `path`."""
        rows = [f"{key}\t{self._directory.name}/{self._made[key][1]}" for key in sorted(self.have(identities))]
        with atomic_write(path) as part:
            part.write_text("\n".join(["key\tfile", *rows, ""]), encoding="utf-8")

    def says(self, identities: Mapping[str, str]) -> dict[str, object]:
        """The dtype and shape of a clip's features, and the bytes of all; empty where there are none."""
        keys = sorted(self.have(identities))
        if not keys:
            return {}
        with safe_open(self._directory / self._made[keys[0]][1], "pt") as file:
            one = file.get_tensor(keys[0])
        return {
            "dtype": str(one.dtype).removeprefix("torch."),
            "shape": list(one.shape),
            "bytes": len(keys) * one.nbytes,
        }
