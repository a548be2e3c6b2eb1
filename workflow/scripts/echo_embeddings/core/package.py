"""Where this package lies: in a clone of the workflow, or installed without one."""

from pathlib import Path


def repository() -> Path | None:
    """The clone of the workflow that this package lies in, None where it is installed without one."""
    scripts = Path(__file__).resolve().parents[2]
    clone = scripts.parent.parent
    return clone if scripts == clone / "workflow/scripts" and (clone / "workflow/Snakefile").is_file() else None
