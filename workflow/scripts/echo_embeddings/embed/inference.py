"""The encoder on a device, fed so that it never waits: batches, copies, memory."""

import collections
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.names import one_line
from ..core.recipe import GUIDE, Recipe
from ..encoders.contract import Tokens
from . import preprocessing
from .limits import AHEAD
from .pooling import Pooled, join, pool

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# What CUDA's libraries and the CPU's allocator say where torch's own allocator raises OutOfMemoryError.
OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "can't allocate memory")

Prepare = Callable[[Tensor, int, Recipe], Tensor]


@torch.inference_mode()
def forward(
    encoder: nn.Module,
    clips: Sequence[Tensor],
    resolution: int,
    dtype: torch.dtype,
    prepare: Prepare = preprocessing.preprocess,
    recipe: Recipe = GUIDE,
    pooling: str = "mean",
    tokens: Tokens | None = None,
) -> Pooled:
    """B videos, uint8 RGB [T, height, width, 3], to what `pooling.pool` keeps of their tokens.

    A video's T frames are those of its `clips_per_video` clips, one clip after the other; where the recipe pads with
    zeros they may be fewer. `tokens` says which part of a clip each of the encoder's stands for. Preprocessing runs in
    float32, the encoder in `dtype`, and means are taken in float32, on the device of the clips.
    """
    video = torch.cat([_padded(prepare(frames[None], resolution, recipe), recipe).to(dtype) for frames in clips])
    apart = video.unflatten(2, (recipe.clips_per_video, -1)).transpose(1, 2).flatten(0, 1)
    # torch's default on a GPU: convolutions of float32 with factors of 10 bits.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        made: Tensor = encoder(apart)
    tubelets = apart.shape[2] // tokens.tubelet if tokens else None
    return pool(made, recipe.clips_per_video, tubelets, pooling)


def _padded(video: Tensor, recipe: Recipe) -> Tensor:
    """A prepared video, [1, 3, T, height, width], with the zeros that the recipe asks for at its end."""
    if recipe.padding != "zeros" or recipe.frames is None:
        return video
    return F.pad(video, (0, 0, 0, 0, 0, recipe.frames - video.shape[2]))


@dataclass
class PendingBatch:
    """A batch that the device may still be computing."""

    indices: list[int]  # of its clips
    pooled: Pooled  # in main memory, and complete once `done` has happened
    done: torch.cuda.Event | None  # None where the batch is complete

    @property
    def ready(self) -> bool:
        """Whether `result` returns without waiting."""
        return self.done is None or self.done.query()

    def result(self) -> tuple[list[int], Pooled]:
        """The indices of the clips and what is kept of them; waits for the device."""
        if self.done:
            self.done.synchronize()
            # A copy, so that the page-locked memory goes back to its pool.
            return self.indices, self.pooled.each(Tensor.clone)
        return self.indices, self.pooled


class Extractor:
    """Turns clips into vectors and features, `batch_size` clips at a time.

    A batch that does not fit into the device's memory is halved, and so are those after it. With `compiled`, full
    batches run compiled code, which the first of them waits for; where compiling does not work, it goes on without.
    """

    def __init__(
        self,
        encoder: nn.Module,
        device: torch.device,
        precision: str,
        resolution: int,
        batch_size: int,
        *,
        compiled: bool = False,
        recipe: Recipe = GUIDE,
        pooling: str = "mean",
        tokens: Tokens | None = None,
    ) -> None:
        """`encoder` lies on `device` in the dtype of `precision`.

        `batch_size` is how many clips a batch has; `pooling` one of `pooling.POOLS`, for which `tokens` says what the
        encoder's stand for.
        """
        self._encoder, self._device, self._resolution = encoder, device, resolution
        self._dtype = DTYPES[precision]
        self._recipe, self._pooling, self._tokens = recipe, pooling, tokens
        self._prepare: Prepare = preprocessing.preprocess
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead = ahead(device)
        self.batch_size = batch_size
        self._use_compiled = self._has_compiled_code = compiled and self._compile()
        self.compiled = False  # whether a batch has run compiled code
        self.waited = 0.0  # seconds, for clips

    def run(self, clips: Iterable[tuple[int, Tensor]]) -> Iterator[tuple[list[int], Pooled]]:
        """Yield indices of clips and what is kept of these clips, in main memory, in the order of `clips`.

        `clips` are indices with frames, uint8 [T, height, width, 3]. Raises `UserError` if one clip alone does not
        fit into memory.
        """
        waiting: collections.deque[tuple[int, Tensor]] = collections.deque()  # index and frames of a clip
        pending: collections.deque[PendingBatch] = collections.deque()
        for clip in self._timed(clips):
            while pending and pending[0].ready:  # finished while the clip was waited for: theirs to save
                yield pending.popleft().result()
            waiting.append(clip)
            while len(waiting) >= self.batch_size:
                pending.append(self._launch([waiting.popleft() for _ in range(self.batch_size)]))
                if len(pending) > self._ahead:
                    yield pending.popleft().result()
        while waiting:
            pending.append(self._launch([waiting.popleft() for _ in range(min(self.batch_size, len(waiting)))]))
        while pending:
            yield pending.popleft().result()

    @property
    def in_flight(self) -> int:
        """How many clips may be computed and not yielded yet."""
        return self.batch_size * (1 + self._ahead)

    def _compile(self) -> bool:
        """Compile what is more than one kernel: a block, whose code then serves all blocks, and the preprocessing.

        An encoder whose blocks differ runs as it is.
        The first full batch waits for it. Returns False where torch cannot even begin, for want of a directory, say.
        """
        try:
            for block in blocks_of(self._encoder):
                block.compile(dynamic=False)
            self._prepare = torch.compile(preprocessing.preprocess, dynamic=False)
        except (OSError, RuntimeError) as error:
            print(f"torch.compile does not work here, going on without: {one_line(error)[:300]}", flush=True)
            return False
        return True

    def _timed(self, clips: Iterable[tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
        """The clips; the time that they keep waiting is added to `waited`."""
        source = iter(clips)
        while True:
            started = time.monotonic()
            clip = next(source, None)
            self.waited += time.monotonic() - started
            if clip is None:
                return
            yield clip

    def _launch(self, batch: list[tuple[int, Tensor]]) -> PendingBatch:
        """Start a batch of (index, frames); a GPU computes it while this process goes on."""
        on_device = self._compute([frames for _, frames in batch])
        pooled = on_device.each(lambda tensor: tensor.to("cpu", non_blocking=True))
        done = None
        if self._copies:
            done = torch.cuda.Event(blocking=True)  # waiting for it leaves the core to the decoding processes
            done.record()
        return PendingBatch([index for index, _ in batch], pooled, done)

    def _compute(self, clips: list[Tensor]) -> Pooled:
        """Vectors and features of uint8 clips, in smaller batches where they do not fit into memory."""
        # Code is compiled for full batches: a smaller last one would be compiled for again.
        compiled = self._use_compiled and len(clips) == self.batch_size
        try:
            with self._stance(compiled):
                pooled = forward(
                    self._encoder,
                    self._upload(clips),
                    self._resolution,
                    self._dtype,
                    self._prepare,
                    self._recipe,
                    self._pooling,
                    self._tokens,
                )
            self.compiled |= compiled
            return pooled
        except RuntimeError as error:
            if compiled and isinstance(error, torch._dynamo.exc.TorchDynamoException):
                print(f"torch.compile does not work here, going on without: {one_line(error)[:300]}", flush=True)
                self._use_compiled = False
            elif not is_out_of_memory(error):
                raise
            elif len(clips) == 1:
                raise UserError(
                    f"one clip alone does not fit into the memory of {self._device}: {one_line(error)[:200]}; "
                    "take embed.precision: bf16 or a GPU with more memory, or see who else uses this one"
                ) from error
            else:
                self.batch_size = min(self.batch_size, len(clips) // 2)
                print(f"out of memory with {len(clips)} clips, going on with batches of {self.batch_size}", flush=True)
        # Here and not in the handler, where the error's traceback would still hold what the batch had taken.
        if self._copies:
            torch.cuda.empty_cache()
        parts: list[Pooled] = []
        while clips:
            part, clips = clips[: self.batch_size], clips[self.batch_size :]
            parts.append(self._compute(part))
        return join(parts)

    def _stance(self, compiled: bool) -> contextlib.AbstractContextManager[object]:
        """A context in which the compiled code runs, or the same code uncompiled."""
        if not self._has_compiled_code:
            return contextlib.nullcontext()
        stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance(
            "default" if compiled else "force_eager"
        )
        return stance

    def _upload(self, clips: list[Tensor]) -> list[Tensor]:
        """The clips on the device; to a GPU they are copied in a stream of their own, while it computes."""
        if not self._copies:
            return clips
        with torch.cuda.stream(self._copies):
            uploaded = [frames.to(self._device, non_blocking=True) for frames in clips]
        stream = torch.cuda.current_stream(self._device)
        stream.wait_stream(self._copies)
        for frames in uploaded:
            frames.record_stream(stream)
        return uploaded


def ahead(device: torch.device) -> int:
    """How many batches wait behind the one that the device is computing; on a CPU none does."""
    return AHEAD if device.type == "cuda" else 0


def blocks_of(encoder: nn.Module) -> Sequence[nn.Module]:
    """The blocks of an encoder that one compiled code serves; none where they differ in the shapes of their weights."""
    blocks: Sequence[nn.Module] = getattr(encoder, "blocks", ())
    shapes = {tuple(parameter.shape for parameter in block.parameters()) for block in blocks}
    return blocks if len(shapes) == 1 else ()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or its libraries, found no memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)
