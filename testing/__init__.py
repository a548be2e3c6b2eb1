"""What tests and benchmarks share: other ways to a result, drawn inputs whose truth is known, jobs to be killed.

Nothing here is part of the library, and no test stands here. Tests and benchmarks import from here and not from
each other.
"""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
