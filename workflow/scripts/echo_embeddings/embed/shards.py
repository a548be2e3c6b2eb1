"""Vectors made so far, kept through any kill."""

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..collection.units import Unit
from ..core import corrections, state
from ..core.files import PART
from ..core.fingerprint import prefix
from ..core.vectors import save_tensors


class Shards:
    """Vectors in files of a state directory for each bucket; each file appears whole or not at all.

    Only those made under one fingerprint are read. The others stay: going back to an earlier setting, or to
    clips that `limit` leaves out for a while, costs nothing.
    """

    def __init__(self, top: Path, unit: Unit, fingerprint: str) -> None:
        """Read the files of each bucket of `unit`, below `top`; one that is damaged is set aside."""
        self._top, self._bucket = top, unit.bucket
        self._prefix = prefix(fingerprint)
        self._made: dict[str, dict[str, tuple[str, Tensor]]] = {}  # bucket -> key -> identity of the clip, vector
        self._paths: dict[str, list[Path]] = {}
        for bucket in unit.buckets:
            for part in (top / bucket).glob(f"*{PART}"):  # of a run that was killed; this one holds the lock
                part.unlink()
            made: dict[str, tuple[str, Tensor]] = {}
            self._made[bucket] = made
            paths = self._paths[bucket] = sorted((top / bucket).glob(f"{self._prefix}-*.pt"))
            for path in list(paths):
                shard = state.load(path, _read)
                if shard is None:
                    paths.remove(path)
                else:
                    made |= {key: (identity, vector) for key, identity, vector in zip(*shard, strict=True)}

    def vectors(self, identities: Mapping[str, str]) -> dict[str, Tensor]:
        """The vectors that were made of the clips as they are now, float32 [embed_dim] by key."""
        found = {key: self._made[self._bucket(key)].get(key) for key in identities}
        return {key: made[1] for key, made in found.items() if made and made[0] == identities[key]}

    def add(self, fresh: Mapping[str, Tensor], identities: Mapping[str, str]) -> None:
        """Save vectors, float32 [embed_dim] by key, in new shards, but for those that are there already."""
        there = self.vectors({key: identities[key] for key in fresh})
        made = {key: (identities[key], vector) for key, vector in fresh.items() if key not in there}
        for bucket, keys in grouped(made, self._bucket).items():
            of_bucket = {key: made[key] for key in keys}
            self._made[bucket] |= of_bucket
            self._write(bucket, of_bucket)

    def _write(self, bucket: str, made: Mapping[str, tuple[str, Tensor]]) -> None:
        path = self._top / bucket / f"{self._prefix}-{time.time_ns():020d}.pt"
        content = {
            "keys": list(made),
            "identities": [identity for identity, _ in made.values()],
            "vectors": torch.stack([vector for _, vector in made.values()]),
        }
        save_tensors(content, path)
        self._paths[bucket].append(path)

    def compact(self) -> None:
        """Put all shards of a bucket into one."""
        for bucket, old in self._paths.items():
            if len(old) > 1:
                self._paths[bucket] = []
                self._write(bucket, self._made[bucket])
                for path in old:
                    path.unlink()


def grouped(keys: Iterable[str], bucket: Callable[[str], str]) -> dict[str, list[str]]:
    """The keys of each bucket."""
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(bucket(key), []).append(key)
    return found


def _read(path: Path, mmap: bool = False) -> tuple[list[str], list[str], Tensor]:
    """The keys, identities and vectors [N, embed_dim] of a shard. Raises some exception where it is damaged."""
    shard = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    keys, identities, vectors = shard["keys"], shard["identities"], shard["vectors"]
    if not all(isinstance(text, str) for text in (*keys, *identities)) or len(keys) != len(identities):
        raise ValueError("not a key and an identity for each vector")
    if vectors.dtype != torch.float32 or vectors.shape != (len(keys), vectors.shape[-1]):
        raise ValueError(f"its vectors are {vectors.dtype} {list(vectors.shape)}")
    if not vectors.isfinite().all():
        raise ValueError("a vector holds NaN or Inf")
    return keys, identities, vectors


def carry(path: Path, under: Mapping[tuple[str, str], tuple[Path, str, str]]) -> int:
    """Copy the vectors of the shard at `path` to other state directories, under other keys.

    `under` is key and identity of a clip -> state directory, key and identity, both identities without corrections:
    those that a vector was made with stay with it. Vectors of other clips are left out, and a shard that is damaged is.
    Returns how many were written.
    """
    shard = state.load(path, functools.partial(_read, mmap=True), leave=True)
    if shard is None:
        return 0
    keys, identities, vectors = shard
    made = [corrections.split(identity) for identity in identities]
    targets = [under.get((key, plain)) for key, (plain, _) in zip(keys, made, strict=True)]
    for directory in {target[0] for target in targets if target}:
        chosen = {i: target for i, target in enumerate(targets) if target and target[0] == directory}
        directory.mkdir(parents=True, exist_ok=True)
        content = {
            "keys": [key for _, key, _ in chosen.values()],
            "identities": [identity + made[i][1] for i, (_, _, identity) in chosen.items()],
            "vectors": vectors[list(chosen)],
        }
        save_tensors(content, directory / f"{path.name.split('-')[0]}-{time.time_ns():020d}.pt")
    return sum(target is not None for target in targets)
