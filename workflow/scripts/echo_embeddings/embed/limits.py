"""How much of a job's work is in memory at a time.

These numbers stand apart from what uses torch: the estimate of a job's memory needs them while the workflow is parsed.
"""

READ_AHEAD = 32  # clips that a decoding process is ahead
AHEAD = 2  # batches queued on a GPU behind the one that it is computing
SHARD_BYTES = 2**29  # features that are not saved yet
SAVE_SECONDS = 300.0  # age of the oldest vector that is not saved yet
