"""What a job will ask of a cluster, estimated from its work: megabytes of memory and minutes.

Three times what we expect, because a job that asks for too little is killed, and one that asks for too much only
waits longer. A killed job goes on where it was, and asks for more at its next attempt.
"""

import math
from collections.abc import Mapping

from ..core.layout import Layout
from ..core.settings import Model
from ..embed.limits import AHEAD, READ_AHEAD, SHARD_BYTES
from ..encoders import contract
from ..encoders.contract import Size

CAUTION = 3
START_MINUTES = 30  # a slow network disk: 16 GB of checkpoint read once, libraries loaded, directories listed
START_SECONDS = 12  # until a job is at work: Snakemake reads the workflow, Python the libraries
HEADER_SECONDS = 0.02  # to read a header, on a network disk; 1 ms of CPU time
CONVERT_SECONDS = 0.5  # CPU seconds a clip of 100 frames; docs/benchmarks.md
FRAME_BYTES = 6000  # of an MP4 frame of 256 x 256 pixels
CUDA_BYTES = 1.5e9
UNKNOWN = Size(0.3e9, 2e12, 10e6)  # what a job asks for where nobody knows what its encoder costs: a ViT-L
DECODE_SECONDS = 0.1  # CPU seconds to read a clip's MP4
MERGED_BYTES = 10e6  # bytes of vectors a second that the quality page takes, and merging too; docs/benchmarks.md
# Operations a second. On an L40S the reference embeds 27 to 30 clips a second with ViT-L in bf16; a core of a
# server without a GPU does 0.05e12.
L40S = {"bf16": 45e12, "fp32": 12e12}
CORE = 0.05e12
NATIVE_PIXELS = 1024 * 768  # of a frame as large as it is stored, where echo machines make large ones
LONG_CLIP = 200  # frames
WORKER_MB = 200  # a process that decodes: 90 measured at 384 x 384
TORCH_MB = 6000  # libraries, and what CUDA keeps in main memory


def convert_mb(files: int, workers: int) -> int:
    """Memory of converting a folder of `files` files: a worker takes 200 MB, and a row of the manifest 2 kB."""
    return 1000 + 500 * workers + files // 100


def convert_seconds(clips: int, workers: int) -> float:
    """Time of converting `clips` clips of 100 frames, as we expect it."""
    return clips * CONVERT_SECONDS / workers


def convert_minutes(files: int, workers: int) -> int:
    """Time of converting a folder, as if every file were a clip."""
    return START_MINUTES + math.ceil(CAUTION * convert_seconds(files, workers) / 60)


def headers_seconds(files: int, workers: int) -> float:
    """Time of reading the headers of `files` files, as we expect it."""
    return files * HEADER_SECONDS / workers


def headers_minutes(files: int, workers: int) -> int:
    """Time of reading the headers of a folder."""
    return START_MINUTES + math.ceil(CAUTION * headers_seconds(files, workers) / 60)


def units(files: int) -> int:
    """Into how many units to divide a collection: jobs of at most 10,000 files, and enough for a few cards."""
    return min(256, max(16, 1 << math.ceil(files / 10_000).bit_length()))


def mp4_bytes(frames: int, size: int) -> int:
    """Size of MP4 files with so many frames of `size` x `size` pixels in all; half or twice that, by what they show."""
    return frames * FRAME_BYTES * size**2 // 256**2


def vector_bytes(clips: int, embed_dim: int) -> int:
    """Size of a model's vectors: the folders' files, the merged one, and what the jobs keep."""
    return 3 * clips * embed_dim * 4


def feature_bytes(clips: int, model: Model, pool: str) -> int:
    """Size of the features of `clips` clips that `pool`, one of `pooling.POOLS`, keeps besides the vectors."""
    tokens = contract.FAMILIES[model.family].tokens
    tubelets, patches = tokens.grid(model.num_frames, model.resolution) if tokens else (0, 0)
    width = {"mean": 0, "clips": 4, "time": 4 * tubelets, "tokens": 2 * tubelets * patches}[pool]
    return clips * model.recipe.clips_per_video * model.embed_dim * width


def features_line(pool: str, sizes: Mapping[str, int], clips: int, free: int) -> str:
    """What is said of features before a run: `sizes` are bytes by model, `free` those of the disk."""
    each = ", ".join(f"{name} {bytes_in_words(size)}" for name, size in sizes.items())
    return (
        f"embed.pool: {pool}: features of at most {clips:,} clips take about {bytes_in_words(sum(sizes.values()))} in "
        f"{Layout().features(pool)} ({each}); {bytes_in_words(free)} are free there"
    )


def bytes_in_words(number: float) -> str:
    """A size with a unit that leaves one to three digits before the point."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def embed_mb(
    clips: int, model: Model, size: Size | None, *, device: str, batch_size: int, num_workers: int, pool: str
) -> int:
    """Memory of embedding `clips` clips: the weights twice, decoded batches that wait, the vectors, the features.

    Two batches wait, and the clips that each decoding process has read ahead.
    On a CPU the encoder's activations count too.
    """
    size = size or UNKNOWN
    frames = model.num_frames * model.recipe.clips_per_video
    own_pixels = model.recipe.own_pixels and not model.recipe.resized_early
    pixels = NATIVE_PIXELS if own_pixels else model.resolution**2
    waiting = (READ_AHEAD * num_workers + 2 * batch_size) * frames * pixels * 3
    vectors = 4 * clips * model.embed_dim * 4
    total = 2 * 4 * size.parameters + waiting + vectors
    if pool != "mean":  # of the batches under way, one of them copied; what is being saved, and one batch more, twice
        total += (AHEAD + 2) * feature_bytes(batch_size, model, pool)
        total += 2 * (SHARD_BYTES + feature_bytes(batch_size, model, pool))
    if device == "cpu":
        total += 3 * 4 * batch_size * model.recipe.clips_per_video * size.widest
    if model.recipe.mask == "echoprime":  # each process holds a clip's frames, three times at worst
        total += max(1, num_workers) * 3 * LONG_CLIP * NATIVE_PIXELS * 3
    return TORCH_MB + WORKER_MB * num_workers + math.ceil(total / 1e6)


def embed_minutes(clips: int, model: Model, size: Size | None, *, device: str, num_workers: int, threads: int) -> int:
    """Time of embedding `clips` clips on one L40S, or on `threads` cores where `device` is cpu."""
    decoding = clips * DECODE_SECONDS / max(1, num_workers)
    seconds = embed_seconds(clips, model, size or UNKNOWN, device=device, threads=threads) + decoding
    return START_MINUTES + math.ceil(CAUTION * seconds / 60)


def embed_seconds(clips: int, model: Model, size: Size, *, device: str, threads: int) -> float:
    """Time of the encoder for `clips` clips, as we expect it."""
    speed = L40S[model.precision] if device == "cuda" else CORE * threads
    return clips * model.recipe.clips_per_video * size.flop / speed


def card_bytes(model: Model, size: Size) -> float:
    """Memory of a GPU for one clip at a time: weights, a few copies of the widest layer, CUDA itself."""
    number = {"bf16": 2, "fp32": 4}[model.precision]
    return number * (size.parameters + 3 * model.recipe.clips_per_video * size.widest) + CUDA_BYTES


def merged_mb(clips: int, embed_dim: int) -> int:
    """Memory of a job that works on all vectors at once, and makes a few copies of them."""
    return 4000 + math.ceil(5 * clips * embed_dim * 4 / 1e6)


def merged_minutes(clips: int, embed_dim: int) -> int:
    """Time of a job that works on all vectors at once."""
    return START_MINUTES + math.ceil(CAUTION * clips * embed_dim * 4 / MERGED_BYTES / 60)
