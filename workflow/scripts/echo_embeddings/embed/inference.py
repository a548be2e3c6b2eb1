"""The encoder on a device, fed so that it never waits: batches, memory, compilation."""

import collections
import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.names import one_line
from ..core.recipe import GUIDE, Recipe
from ..encoders.architectures import TUBELET
from ..encoders.vjepa import Encoder
from . import pooling, sampling
from .loader import Chunk
from .pooling import Pooled

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
AHEAD = 2  # batches queued on a GPU behind the one that it is at work on
ROUNDS = 3  # batches of a kind that are timed in a trial; the quickest counts, since others share the machine
PATIENCE = 2  # doublings of the batch that may bring nothing before the trial ends
NEAR = 1.02  # of two batch sizes with costs as near as this, the smaller is taken
# What CUDA's libraries and the CPU's allocator say where torch's own allocator raises OutOfMemoryError.
OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "can't allocate memory")
COMPILE_FROM = 120.0  # seconds of work from which on compiling, up to half a minute of them, pays

Prepare = Callable[[Tensor, int, bool], Tensor]


@torch.inference_mode()
def forward(
    encoder: nn.Module,
    clips: Sequence[Tensor],
    resolution: int,
    dtype: torch.dtype,
    prepare: Prepare = sampling.preprocess,
    recipe: Recipe = GUIDE,
    keep: str = "mean",
) -> Pooled:
    """B videos, uint8 RGB [T, height, width, 3], to what `pooling.pool` makes of their tokens.

    A video's T frames are those of its `clips_per_video` clips, one clip after the other. Preprocessing runs in
    float32, the encoder in `dtype`, and means are taken in float32, on the device of the clips.
    """
    video = torch.cat([prepare(frames[None], resolution, recipe.crop).to(dtype) for frames in clips])
    apart = video.unflatten(2, (recipe.clips_per_video, -1)).transpose(1, 2).flatten(0, 1)
    tokens: Tensor = encoder(apart)
    return pooling.pool(tokens, recipe.clips_per_video, apart.shape[2] // TUBELET, keep)


@dataclass
class _Flight:
    """A batch that the device is at work on."""

    places: list[int]
    made: Pooled  # on the host, and there once `done` has come
    done: torch.cuda.Event | None

    @property
    def ready(self) -> bool:
        """Whether landing takes no waiting."""
        return self.done is None or self.done.query()

    def land(self) -> tuple[list[int], Pooled]:
        if self.done:
            self.done.synchronize()
            # The page-locked memory goes back to its pool.
            return self.places, self.made.each(Tensor.clone)
        return self.places, self.made


class Extractor:
    """Turns chunks of clips into vectors and features, `batch_size` clips at a time.

    With `auto` the first clips go in batches of 1, 2, 4, ... and the size is kept at which a clip is cheapest. A
    batch that does not fit into the device's memory is halved, then and later. The encoder is compiled where
    enough work is left for that to pay, and used compiled if it is faster. All this is tried on clips that are
    wanted: none is computed twice.
    """

    def __init__(
        self,
        encoder: Encoder,
        device: torch.device,
        precision: str,
        resolution: int,
        batch_size: int,
        *,
        auto: bool = False,
        compile_from: float = COMPILE_FROM,
        recipe: Recipe = GUIDE,
        keep: str = "mean",
    ) -> None:
        """`encoder` lies on `device` in the dtype of `precision`.

        `batch_size` is the size of the batches, with `auto` the largest that is tried; `compile_from` the
        seconds of work from which on compiling is tried; `keep` one of `pooling.POOLS`.
        """
        self._encoder, self._device, self._resolution = encoder, device, resolution
        self._dtype = DTYPES[precision]
        self._auto, self._most, self._compile_from = auto, batch_size, compile_from
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._recipe, self._keep = recipe, keep
        self._prepare: Prepare = sampling.preprocess
        self._stances = False  # whether there is compiled code to choose or leave
        self._ahead = ahead(device)
        self.batch_size = 1 if auto else batch_size
        self.compiled = False
        self.waited = 0.0  # seconds, for chunks

    def run(self, chunks: Iterable[Chunk], clips: int) -> Iterator[tuple[list[int], Pooled]]:
        """Yield places and their vectors and features, on the host, in the order of the chunks.

        `clips` is how many there will be at most. Raises `UserError` if one clip alone does not fit into memory.
        """
        waiting: collections.deque[tuple[int, Tensor]] = collections.deque()
        flying: collections.deque[_Flight] = collections.deque()
        trials = self._trials(lambda: clips)
        trying = _advance(trials, None)
        for chunk in self._timed(chunks):
            while flying and flying[0].ready:  # done while the chunk was waited for: theirs to save
                yield flying.popleft().land()
            for places, frames in zip(chunk.places, chunk.frames, strict=True):
                waiting.extend(zip(places, frames.unbind(), strict=True))
            while len(waiting) >= self.batch_size:
                started = time.monotonic()
                size = self.batch_size
                clips -= size
                flight = self._launch([waiting.popleft() for _ in range(size)])
                if trying:  # alone on the device, to be timed
                    landed = flight.land()
                    trying = _advance(trials, (time.monotonic() - started) / size)
                    yield landed
                else:
                    flying.append(flight)
                    if len(flying) > self._ahead:
                        yield flying.popleft().land()
        while waiting:
            flying.append(self._launch([waiting.popleft() for _ in range(min(self.batch_size, len(waiting)))]))
        for flight in flying:
            yield flight.land()

    @property
    def in_flight(self) -> int:
        """Clips that may be computed and not yielded yet."""
        return self.batch_size * (1 + self._ahead)

    def _timed(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """The chunks; adds what they keep waiting to `waited`."""
        source = iter(chunks)
        while True:
            started = time.monotonic()
            chunk = next(source, None)
            self.waited += time.monotonic() - started
            if chunk is None:
                return
            yield chunk

    def _trials(self, clips_left: Callable[[], int]) -> Generator[None, float | None, None]:
        """Settle batch size and compilation: each `yield` is one batch as things are, and gives its seconds a clip."""
        seconds = None
        if self._auto:
            seconds = yield from self._settle_batch_size()
            print(f"batches of {self.batch_size} clips", flush=True)
        if math.isinf(self._compile_from):
            return
        if seconds is None:
            seconds = yield from self._measure()
        if seconds * clips_left() > self._compile_from:
            self._compile()
            share = (yield from self._measure()) / seconds
            self.compiled = self.compiled and share < 1
            print(f"compiled: {share:.2f} of the time: {'used' if self.compiled else 'not used'}", flush=True)

    def _settle_batch_size(self) -> Generator[None, float | None, float]:
        """Choose the batch size; returns its seconds a clip."""
        cost: dict[int, float] = {}  # seconds a clip, by batch size
        size = best = 1
        while True:
            self.batch_size = size
            seconds = yield from self._measure()
            if self.batch_size < size:  # it did not fit
                break
            cost[size] = seconds
            best = min(cost, key=cost.__getitem__)
            if size == self._most or size >= best * 2**PATIENCE:
                break
            size = min(2 * size, self._most)
        self.batch_size = min(s for s in cost if cost[s] <= NEAR * cost[best])
        return cost[self.batch_size]

    def _measure(self) -> Generator[None, float | None, float]:
        """Seconds a clip as things stand, of the quickest of some batches; the first loads kernels and takes memory."""
        yield
        times = []
        for _ in range(ROUNDS):
            times.append((yield) or 0.0)
        return min(times)

    def _compile(self) -> None:
        """Compile what is more than one kernel: a block, whose code then serves all blocks, and the preprocessing."""
        for block in self._encoder.blocks:
            block.compile(dynamic=False)
        self._prepare = torch.compile(sampling.preprocess, dynamic=False)
        self.compiled = self._stances = True

    def _launch(self, batch: list[tuple[int, Tensor]]) -> _Flight:
        """Start a batch of (place, frames)."""
        there = self._compute([frames for _, frames in batch])
        made = there.each(lambda tensor: tensor.to("cpu", non_blocking=True))
        done = None
        if self._copies:
            done = torch.cuda.Event(blocking=True)  # waiting leaves the core to the workers
            done.record()
        return _Flight([place for place, _ in batch], made, done)

    def _compute(self, clips: list[Tensor]) -> Pooled:
        """Vectors and features of uint8 clips, in smaller batches where they do not fit."""
        # Code is compiled for full batches: a smaller last one would compile it again.
        compiled = self.compiled and len(clips) == self.batch_size
        try:
            with self._stance(compiled):
                there = self._upload(clips)
                return forward(
                    self._encoder, there, self._resolution, self._dtype, self._prepare, self._recipe, self._keep
                )
        except RuntimeError as error:
            if compiled and isinstance(error, torch._dynamo.exc.TorchDynamoException):
                print(f"torch.compile does not work here, going on without: {one_line(error)[:300]}", flush=True)
                self.compiled = False
            elif not _is_out_of_memory(error):
                raise
            elif len(clips) == 1:
                raise UserError(
                    f"one clip alone does not fit into the memory of {self._device}: {one_line(error)[:200]}; "
                    "take embed.precision: bf16, a card with more memory, or see who else uses it"
                ) from error
            else:
                self.batch_size = min(self.batch_size, len(clips) // 2)
                print(f"out of memory with {len(clips)} clips, going on with batches of {self.batch_size}", flush=True)
        # Here and not in the handler, where the error's traceback would still hold what the batch had taken.
        if self._copies:
            torch.cuda.empty_cache()
        made: list[Pooled] = []
        while clips:
            part, clips = clips[: self.batch_size], clips[self.batch_size :]
            made.append(self._compute(part))
        return pooling.join(made)

    def _stance(self, compiled: bool) -> contextlib.AbstractContextManager[object]:
        """Run what is compiled, or the same code uncompiled."""
        if not self._stances:
            return contextlib.nullcontext()
        stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance(
            "default" if compiled else "force_eager"
        )
        return stance

    def _upload(self, clips: list[Tensor]) -> list[Tensor]:
        """The clips on the device; to a GPU on a stream of their own, beside the batch that it is at work on."""
        if not self._copies:
            return clips
        with torch.cuda.stream(self._copies):
            there = [frames.to(self._device, non_blocking=True) for frames in clips]
        stream = torch.cuda.current_stream(self._device)
        stream.wait_stream(self._copies)
        for frames in there:
            frames.record_stream(stream)
        return there


def ahead(device: torch.device) -> int:
    """How many batches wait behind the one that the device is at work on; on a CPU none does."""
    return AHEAD if device.type == "cuda" else 0


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def _advance(trials: Generator[None, float | None, None], seconds: float | None) -> bool:
    """Whether there is another trial."""
    try:
        trials.send(seconds)
    except StopIteration:
        return False
    return True
