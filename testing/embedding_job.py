"""The embedding of a folder as a job to be killed, and a reader that ends its process.

    python -m testing.embedding_job SOURCE TOP PAUSE HOLD OPTIONS

SOURCE is a directory of `testing.embedding.write_source`. The job tells of every batch and pauses after it, PAUSE
seconds; after batch HOLD it waits until the file TOP/go is there. OPTIONS are those of `run_job`, as JSON.

The job's workers import this file, and not torch.
"""

import itertools
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echo_embeddings.core.manifest import Row
from echo_embeddings.core.workers import Failure
from echo_embeddings.embed.direct import DicomReader
from echo_embeddings.embed.reader import Reader


@dataclass(frozen=True)
class HostileReader:
    """Reads clips as `reader` does; at 05.mp4 it notes the attempt in a file, and hangs, crashes or dies."""

    reader: Reader
    what: str
    attempts: Path

    def read(self, row: Row) -> np.ndarray | Failure:
        if row.mp4 == "05.mp4":
            with self.attempts.open("a") as file:
                file.write(".")
            if self.what == "hang":
                time.sleep(3600)
            elif self.what == "crash":
                os.abort()
            elif self.what == "die" or self.attempts.stat().st_size == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.reader.read(row)


class CrashingReader(DicomReader):
    """Reads DICOM files; at that of 05.mp4 it crashes."""

    def read(self, row: Row) -> np.ndarray | Failure:
        if row.mp4 == "05.mp4":
            os.abort()
        return super().read(row)


if __name__ == "__main__":
    from echo_embeddings.embed import inference
    from testing.embedding import run_job

    source, top, pause, hold = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    real, computed = inference.forward, itertools.count(1)

    def slowly(*arguments):
        """Compute, so that a test can come between two batches."""
        made = real(*arguments)
        print("a batch", flush=True)
        time.sleep(pause)
        number = next(computed)
        while number == hold and not (top / "go").exists():
            time.sleep(0.01)
        return made

    inference.forward = slowly
    run_job(source, top, **json.loads(sys.argv[5]))
