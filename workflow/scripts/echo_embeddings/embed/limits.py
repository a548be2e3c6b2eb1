"""How much of a job's work is in memory at a time.

These numbers stand apart from what uses torch: the estimate of a job's memory needs them while the workflow is parsed.
"""

READ_AHEAD = 32  # clips that a decoding process is ahead
AHEAD = 2  # batches queued on a GPU behind the one that it is computing
# Operations from which on compiling pays: it takes 15 to 20 s and saves a fifth of them, which is 1 to 2 minutes of an
# H200 (docs/benchmarks.md), or 18,000 clips of ViT-L.
COMPILE_FROM = 3e16
SHARD_BYTES = 2**29  # features that are not saved yet
SAVE_SECONDS = 300.0  # age of the oldest vector that is not saved yet
