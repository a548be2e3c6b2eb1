"""What is computed and not saved yet: when it is saved, and that it is saved however the job ends."""

import signal
import time
from collections.abc import Mapping
from typing import Self

from torch import Tensor

from .features import Features
from .limits import SAVE_SECONDS, SHARD_BYTES
from .shards import Shards


def largest_batch(save_every: int, ahead: int) -> int:
    """The largest batch with which a kill loses at most `save_every` vectors; `ahead` batches wait behind one."""
    return max(1, save_every // (1 + ahead))


class TerminatedError(SystemExit):
    """SIGTERM came; the process ends with 143, as shells report a process that SIGTERM ended."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Unsaved:
    """Vectors and features that are not saved yet.

    It is a context manager that saves them however its block ends; within the block SIGTERM raises `TerminatedError`.
    """

    def __init__(
        self, shards: Shards, features: Features | None, identities: Mapping[str, str], save_every: int
    ) -> None:
        """They go to `shards` and, where it is given, to `features`; a kill loses at most `save_every` vectors."""
        self._to_shards, self._to_features = shards, features
        self._identities, self._save_every = identities, save_every
        self._vectors: dict[str, Tensor] = {}
        self._features: dict[str, Tensor] = {}
        self._saved = time.monotonic()
        self._terminated = False

    def add(self, vectors: Mapping[str, Tensor], features: Mapping[str, Tensor], in_flight: int) -> None:
        """Take vectors, float32 [embed_dim], and features by key; a kill would lose `in_flight` more clips with them.

        Raises `OSError` if they are due to be saved and the disk is full.
        """
        self._vectors |= vectors
        self._features |= features
        if (
            len(self._vectors) + in_flight > self._save_every
            or time.monotonic() - self._saved > SAVE_SECONDS
            or sum(tensor.nbytes for tensor in self._features.values()) > SHARD_BYTES
        ):
            self._save()
        if self._terminated:  # an exception that a signal's handler raises can be lost in a destructor
            raise TerminatedError

    def _save(self) -> None:
        # Vectors first: a disk that features fill has room for them.
        self._to_shards.add(self._vectors, self._identities)
        if self._to_features:
            self._to_features.add(self._features, self._identities)
        self._vectors, self._features = {}, {}
        self._saved = time.monotonic()

    def _terminate(self, *_: object) -> None:
        if not self._terminated:  # SLURM sends the signal several times
            self._terminated = True
            raise TerminatedError

    def __enter__(self) -> Self:
        self._sigterm_handler = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._terminated = True  # from here on SIGTERM is ignored, so that the saving is not interrupted
        if kind:
            print(f"stopped: {kind.__name__}; saving what is done", flush=True)
        self._save()
        signal.signal(signal.SIGTERM, self._sigterm_handler)
