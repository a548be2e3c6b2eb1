"""Batch size and compilation, settled by trial on batches that are wanted anyway."""

import math
from collections.abc import Generator
from typing import Any, Protocol

ROUNDS = 3  # batches that are timed in a trial; the quickest counts, since others may share the machine
PATIENCE = 2  # doublings of the batch that may bring nothing before the search ends
NEAR = 1.02  # of two batch sizes whose costs are within this factor, the smaller is taken
COMPILE_FROM = 120.0  # seconds of work from which on compiling, which takes up to half a minute, pays

# At each `yield` one batch is computed, and its seconds a clip are sent back. The trial's result is seconds a clip too.
Trial = Generator[None, Any, float]


class Tunable(Protocol):
    """What the trials change."""

    batch_size: int  # the next batch has this many clips; a batch that does not fit into memory lowers it
    compiled: bool  # whether the next batch runs compiled code; False again where compiling does not work

    def compile(self) -> None:
        """Compile the encoder, and run it so from the next batch on."""


class Trials:
    """The trials of one run. While they are `running`, each batch is to be computed alone, and to be reported."""

    def __init__(self, tuned: Tunable, clips: int, largest: int | None, compile_from: float) -> None:
        """Set up the first trial.

        `clips` is how many clips there are to do, at most; `largest` the largest batch that is tried, None where the
        batch size is given; `compile_from` the seconds of work that must be left for compiling to be tried.
        """
        self._tuned, self._clips_left, self._largest, self._compile_from = tuned, clips, largest, compile_from
        self._steps = self._all()
        self.running = True
        self._advance(None)

    def report(self, clips: int, seconds: float) -> None:
        """Take note of a batch of `clips` clips that took `seconds`, and set up what comes next."""
        self._clips_left -= clips
        self._advance(seconds / clips)

    def _advance(self, seconds: float | None) -> None:
        try:
            self._steps.send(seconds)
        except StopIteration:
            self.running = False

    def _all(self) -> Generator[None, Any, None]:
        seconds = None
        if self._largest is not None:
            seconds = yield from self._settle_batch_size(self._largest)
            print(f"batches of {self._tuned.batch_size} clips", flush=True)
        if math.isinf(self._compile_from):
            return
        if seconds is None:
            seconds = yield from self._measure()
        if seconds * self._clips_left > self._compile_from:
            yield from self._settle_compilation(seconds)

    def _settle_batch_size(self, largest: int) -> Trial:
        """Try 1, 2, 4, ... clips, and keep the batch size at which a clip is cheapest."""
        cost: dict[int, float] = {}  # batch size -> seconds a clip
        size = best = 1
        while True:
            self._tuned.batch_size = size
            seconds = yield from self._measure()
            if self._tuned.batch_size < size:  # the batch did not fit into memory
                break
            cost[size] = seconds
            best = min(cost, key=cost.__getitem__)
            if size == largest or size >= best * 2**PATIENCE:
                break
            size = min(2 * size, largest)
        self._tuned.batch_size = min(size for size in cost if cost[size] <= NEAR * cost[best])
        return cost[self._tuned.batch_size]

    def _settle_compilation(self, uncompiled: float) -> Generator[None, Any, None]:
        """Compile, and keep the compiled code if it is faster than the `uncompiled` seconds a clip."""
        self._tuned.compile()
        share = (yield from self._measure()) / uncompiled
        self._tuned.compiled = self._tuned.compiled and share < 1
        print(f"compiled: {share:.2f} of the time: {'used' if self._tuned.compiled else 'not used'}", flush=True)

    def _measure(self) -> Trial:
        """Time some batches; the first of them, which loads kernels and takes memory, does not count."""
        yield
        times: list[float] = []
        for _ in range(ROUNDS):
            times.append((yield))
        return min(times)
