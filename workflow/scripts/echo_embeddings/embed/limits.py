"""How much of a job's work waits to be saved, at most; the estimate of its memory uses this too."""

SHARD_BYTES = 2**29  # of features
SAVE_SECONDS = 300.0  # of the oldest vector
