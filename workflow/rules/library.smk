# The package echo_embeddings: installed, or lying beside the rules in a clone. Its version must be that of the rules.

import re
import sys

from snakemake.exceptions import WorkflowError

# Behind what is installed, as Snakemake does for scripts: so the rules and their scripts import the same one.
if (WORKFLOW_DIR / "scripts").is_dir() and str(WORKFLOW_DIR / "scripts") not in sys.path:
    sys.path.append(str(WORKFLOW_DIR / "scripts"))

with open(workflow.source_path("../scripts/echo_embeddings/__init__.py")) as source:
    RULES_VERSION = re.search(r'^__version__ = "(.+)"$', source.read(), re.MULTILINE)[1]

try:
    import echo_embeddings
except ModuleNotFoundError as error:
    if error.name != "echo_embeddings":
        raise
    raise WorkflowError(
        f"this workflow is of version {RULES_VERSION} and needs its package: install echo-embeddings {RULES_VERSION} "
        "into the environment in which Snakemake runs"
    )
if echo_embeddings.__version__ != RULES_VERSION:
    raise WorkflowError(
        f"this workflow is of version {RULES_VERSION}, the package echo-embeddings of {echo_embeddings.__version__} "
        f"({Path(echo_embeddings.__file__).parent}): install version {RULES_VERSION}, or take the workflow of "
        f"version {echo_embeddings.__version__}"
    )


def code(package):
    """The package's files and what is in them."""
    return {path.relative_to(package): path.read_bytes() for path in package.rglob("*.py")}


# An edit of a clone would have no effect where another copy of the package is installed.
BESIDE, IMPORTED = WORKFLOW_DIR / "scripts/echo_embeddings", Path(echo_embeddings.__file__).parent
if BESIDE.is_dir() and BESIDE.resolve() != IMPORTED.resolve() and code(BESIDE) != code(IMPORTED):
    raise WorkflowError(
        f"Python imports the package from {IMPORTED}, whose code is not that of this clone, {BESIDE}: install the clone "
        "(make install, or pip install --editable), or run the workflow that the installed package belongs to"
    )
if PREFIXED:
    raise WorkflowError(
        "a module's `prefix` moves what its rules declare, and not what their jobs keep beside it in results/: "
        "leave it out, and give the directory by snakemake --directory"
    )
