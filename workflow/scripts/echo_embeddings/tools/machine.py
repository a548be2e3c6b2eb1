"""What a run needs of the machine: Python and packages, ffmpeg, GPUs, SLURM, credentials, locks.

Each check says what it found, green, amber or red, and how to put it right. None changes anything.
"""

import importlib.metadata
import netrc
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement

from ..convert import video
from ..core import configuration, settings
from ..core.errors import UserError
from ..core.locks import file_lock, reach
from ..core.names import one_line
from ..core.package import repository
from ..encoders import contract
from . import estimate

GREEN, AMBER, RED = "green", "amber", "red"
PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    level: str  # green, amber (a run may go well) or red (it cannot)
    what: str
    says: str
    fix: str = ""  # what to do about it


def software() -> Iterator[Finding]:
    """Python, and the packages against their pins."""
    here = platform.python_version()
    if sys.version_info < PYTHON:
        yield Finding(RED, "Python", f"{here}; 3.11 or newer is needed", "make install PYTHON=python3.12")
    else:
        yield Finding(GREEN, "Python", here)
    clone = repository()
    if clone:
        lines, said, fix = (clone / "requirements/run.txt").read_text().splitlines(), "pinned", "make install"
    else:
        lines, said, fix = importlib.metadata.requires("echo-embeddings") or [], "required", "install the package anew"
    named = [Requirement(line) for line in lines if not line.startswith("#")]
    wanted = [one for one in named if one.marker is None or one.marker.evaluate({"extra": ""})]  # no extra's
    missing, other = [], []
    for requirement in wanted:
        try:
            found = importlib.metadata.version(requirement.name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            missing.append(requirement.name)
        else:
            if not requirement.specifier.contains(found, prereleases=True):
                other.append(f"{requirement.name} {found} ({said}: {requirement.specifier})")
    if missing:
        yield Finding(RED, "packages", f"missing: {', '.join(missing)}", fix)
    elif other:
        yield Finding(AMBER if clone else RED, "packages", f"tested with others: {', '.join(other)}", fix)
    else:
        yield Finding(GREEN, "packages", f"all {len(wanted)} as {said}")


def encoder_of_video(config: Mapping[str, Any]) -> Finding:
    """Whether ffmpeg writes what the configuration asks for."""
    try:
        video.check(settings.convert_settings(config, 256))
    except UserError as error:
        return Finding(RED, "ffmpeg", str(error), "set convert.codec, quality and encoder_options to what ffmpeg takes")
    return Finding(GREEN, "ffmpeg", f"writes {config['convert']['codec']}")


def cards(config: Mapping[str, Any], registry: Mapping[str, Any]) -> Iterator[Finding]:
    """The GPUs, their driver, and their memory against the models."""
    if config["embed"]["device"] == "cpu":
        yield Finding(GREEN, "GPU", "none asked for (embed.device is cpu)")
        return
    if not torch.cuda.is_available():
        if shutil.which("sbatch"):
            yield Finding(AMBER, "GPU", "none here; the cluster's nodes have their own, see profiles/slurm/config.yaml")
        else:
            yield Finding(
                RED, "GPU", f"torch sees none: {_why_no_card()}", "embed: {device: cpu}, or repair the driver"
            )
        return
    smallest = min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    yield Finding(GREEN, "GPU", f"{names}; torch {torch.__version__} for CUDA {torch.version.cuda}")
    for name in config["models"]:
        model = settings.model(config, registry, name)
        size = contract.size(model)
        if size is None:
            yield Finding(GREEN, "GPU memory", f"{name}: what it takes is not known")
            continue
        needed = estimate.card_bytes(model, size)
        if needed > smallest:
            says = f"{name} takes about {needed / 1e9:.0f} GB, a card here has {smallest / 1e9:.0f}"
            # The jobs of a cluster get the cards of its nodes.
            level = AMBER if shutil.which("sbatch") else RED
            yield Finding(level, "GPU memory", says, "take a smaller model, or embed: {precision: bf16}")
        else:
            yield Finding(GREEN, "GPU memory", f"{name} takes {needed / 1e9:.1f} of {smallest / 1e9:.0f} GB and more")


def _why_no_card() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built for the CPU"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return "no driver answers (nvidia-smi)"
    return (
        f"driver {driver[0] if driver else 'unknown'} does not go with torch {torch.__version__} for CUDA "
        f"{torch.version.cuda}; README says which torch does (When something fails)"
    )


def cluster(given: Path | None = None) -> Iterator[Finding]:
    """SLURM, and the partitions that the profile names: the file that is `given`, or else that of profiles/slurm.

    What is wrong with a profile that is given makes its run fail; without one a run may be meant that needs no SLURM.
    """
    wrong = RED if given and configuration.profile_of(given).get("executor") == "slurm" else AMBER
    if not shutil.which("sbatch") and wrong == RED:
        yield Finding(RED, "SLURM", f"there is no sbatch, and {given} gives the jobs to it", "go where it is")
        return
    if not shutil.which("sbatch"):
        yield Finding(GREEN, "SLURM", "none here: run without --profile, or on a node of the cluster")
        return
    try:
        listed = subprocess.run(["sinfo", "--noheader", "--format=%R"], capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        says = f"sinfo does not answer: {one_line(error.stderr.strip().rpartition(chr(10))[2])}"
        yield Finding(wrong, "SLURM", says, "run this on a node of the cluster")
        return
    places = [given] if given else [top / "profiles/slurm/config.yaml" for top in (Path.cwd(), repository()) if top]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        yield Finding(AMBER, "SLURM", f"no {places[0]}", "copy profiles/slurm of the workflow's repository here")
        return
    profile = configuration.profile_of(path)
    resources = profile.get("default-resources") or {}
    if not isinstance(resources, dict):
        resources = dict(part.split("=", 1) for part in resources)
    rules = (profile.get("set-resources") or {}).values()
    named = {resources.get("slurm_partition"), *(rule.get("slurm_partition") for rule in rules)} - {None}
    if absent := sorted(str(name) for name in named - set(listed.stdout.split())):
        name = given or "profiles/slurm"
        says = f"{name} names {', '.join(absent)}; there are {', '.join(sorted(set(listed.stdout.split())))}"
        yield Finding(wrong, "SLURM", says, "change slurm_partition in a copy of profiles/slurm; see docs/slurm.md")
    else:
        yield Finding(GREEN, "SLURM", f"has the profile's partitions: {', '.join(sorted(map(str, named)))}")


def credentials() -> Finding:
    """Whether there are credentials for PhysioNet; never which."""
    if os.environ.get("PHYSIONET_USERNAME") and os.environ.get("PHYSIONET_PASSWORD"):
        return Finding(GREEN, "credentials", "for PhysioNet in the environment")
    try:
        known = netrc.netrc().authenticators("physionet.org")
    except FileNotFoundError:
        known = None
    except (netrc.NetrcParseError, OSError) as error:
        return Finding(AMBER, "credentials", f"~/.netrc cannot be read: {error}", "chmod 600 ~/.netrc")
    if known:
        return Finding(GREEN, "credentials", "for PhysioNet in ~/.netrc")
    return Finding(GREEN, "credentials", "none for PhysioNet; needed only to fetch from there")


def locks(directory: Path) -> Finding:
    """Whether a lock below the working directory keeps another process out, on this machine and on others."""
    try:
        with tempfile.TemporaryDirectory(dir=directory, prefix=".doctor-") as scratch:
            path = Path(scratch, "lock")
            with file_lock(path, wait=False):
                refused = _cannot_lock(path)
            if not refused or _cannot_lock(path):
                says = f"a lock below {directory} does not keep another process out"
                return Finding(RED, "locks", says, "work in a directory on another file system (--directory)")
    except UserError as error:
        return Finding(RED, "locks", str(error))  # which says what to do
    except OSError as error:
        return Finding(RED, "locks", f"none can be made below {directory}: {error.strerror}", "make it writable")
    if why := reach(directory):
        says = f"hold below {directory} for the processes of one machine only: {why}"
        return Finding(AMBER, "locks", says, "let one machine work on a folder at a time; docs/slurm.md")
    return Finding(GREEN, "locks", f"keep two jobs from one folder below {directory}")


def _cannot_lock(path: Path) -> bool:
    """Whether another process is kept from taking the lock."""
    script = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
    return "BlockingIOError" in done.stderr
