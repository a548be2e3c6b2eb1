"""Vectors made so far, kept through any kill."""

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..core import corrections
from ..core.files import PART
from ..core.fingerprint import prefix
from ..core.vectors import save_tensors


class Shards:
    """Vectors in files of the state directory; each file appears whole or not at all.

    Only those made under one fingerprint are read. The others stay: going back to an earlier setting, or to
    clips that `limit` leaves out for a while, costs nothing.
    """

    def __init__(self, state: Path, fingerprint: str) -> None:
        self._state = state
        self._prefix = prefix(fingerprint)
        self._made: dict[str, tuple[str, Tensor]] = {}  # key -> identity of the clip, vector
        for part in state.glob(f"*{PART}"):  # of a run that was killed; this one holds the folder's lock
            part.unlink()
        self._paths = sorted(state.glob(f"{self._prefix}-*.pt"))
        for path in self._paths:
            shard = torch.load(path, map_location="cpu", weights_only=True)
            made = zip(shard["identities"], shard["vectors"], strict=True)
            self._made |= dict(zip(shard["keys"], made, strict=True))

    def vectors(self, identities: Mapping[str, str]) -> dict[str, Tensor]:
        """The vectors that were made of the clips as they are now, float32 [embed_dim] by key."""
        return {
            key: self._made[key][1]
            for key, identity in identities.items()
            if key in self._made and self._made[key][0] == identity
        }

    def add(self, fresh: Mapping[str, Tensor], identities: Mapping[str, str]) -> None:
        """Save vectors, float32 [embed_dim] by key, in a new shard, but for those that are there already."""
        there = self.vectors({key: identities[key] for key in fresh})
        made = {key: (identities[key], vector) for key, vector in fresh.items() if key not in there}
        if made:
            self._made |= made
            self._write(made)

    def _write(self, made: Mapping[str, tuple[str, Tensor]]) -> None:
        path = self._state / f"{self._prefix}-{time.time_ns():020d}.pt"
        content = {
            "keys": list(made),
            "identities": [identity for identity, _ in made.values()],
            "vectors": torch.stack([vector for _, vector in made.values()]),
        }
        save_tensors(content, path)
        self._paths.append(path)

    def compact(self) -> None:
        """Put all shards into one."""
        if len(self._paths) > 1:
            old, self._paths = self._paths, []
            self._write(self._made)
            for path in old:
                path.unlink()


def carry(path: Path, under: Mapping[tuple[str, str], tuple[Path, str, str]]) -> int:
    """Copy the vectors of the shard at `path` to other state directories, under other keys.

    `under` is key and identity of a clip -> state directory, key and identity, both identities without corrections:
    those that a vector was made with stay with it. Vectors of other clips are left out. Returns how many were written.
    """
    shard = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    made = [corrections.split(identity) for identity in shard["identities"]]
    targets = [under.get((key, plain)) for key, (plain, _) in zip(shard["keys"], made, strict=True)]
    for state in {target[0] for target in targets if target}:
        chosen = {i: target for i, target in enumerate(targets) if target and target[0] == state}
        state.mkdir(parents=True, exist_ok=True)
        content = {
            "keys": [key for _, key, _ in chosen.values()],
            "identities": [identity + made[i][1] for i, (_, _, identity) in chosen.items()],
            "vectors": shard["vectors"][list(chosen)],
        }
        save_tensors(content, state / f"{path.name.split('-')[0]}-{time.time_ns():020d}.pt")
    return sum(target is not None for target in targets)
