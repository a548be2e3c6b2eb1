"""Tables and chosen DICOM of a PhysioNet project, through the `physionet` package: each whole, or not there.

The package resumes, retries and checks, but writes under the final name; so it writes into a state directory, and
what is whole is moved from there. PHYSIONET_USERNAME and PHYSIONET_PASSWORD, or else ~/.netrc, say who asks; they
are sent to the server and go nowhere else.
"""

import contextlib
import fnmatch
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TextIO

import requests
from physionet.api import PhysioNetClient
from physionet.api.exceptions import ForbiddenError, NotFoundError, PhysioNetAPIError
from physionet.api.utils import get_credentials_from_env

# Its public download() takes a project at a time: after a failure it asks for every further file as well, which
# without a network takes hours. These are what it does for one file.
from physionet.download import _download_file, _get_file_manifest

from ..core.errors import TransientError, UserError
from ..core.files import FULL, atomic_write, sha256_of
from ..core.locks import exclusive_lock
from ..core.names import one_line
from ..core.progress import Progress

DICOM = "files/"  # where MIMIC's projects keep it; what lies elsewhere is a table
TRIES = 3  # of a file whose transfer breaks off


@dataclass(frozen=True)
class Project:
    """A published version of a project."""

    url: str  # of PhysioNet, or a mirror
    name: str
    version: str

    @property
    def page(self) -> str:
        """Where its data use agreement is signed."""
        return f"{self.url}/content/{self.name}/{self.version}/"


@dataclass(frozen=True)
class Places:
    """Where things go."""

    dicom: Path  # what lies under files/, without that
    tables: Path  # the rest
    state: Path  # for files that are not whole yet
    record: Path  # the list of what was asked for and is there


def fetch(project: Project, include: list[str], places: Places, terminal: TextIO | None = None) -> int:
    """Bring what `include` names to its places, unless it is there as the project's SHA-256 list has it.

    An entry of `include` is a glob over the project's paths (`*` takes `/` too), or a path, or a part of one: the
    name of a folder, patient, study or file. Then the record is written: a TSV of path, file, bytes and SHA-256.
    Returns the number of files. Raises `UserError`, one line, where something cannot be had; what was fetched is
    kept, and the next call goes on from there.
    """
    username, password = get_credentials_from_env()
    if bool(username) != bool(password):
        raise UserError("PHYSIONET_USERNAME and PHYSIONET_PASSWORD: one of the two is missing; set both or neither")
    with (
        exclusive_lock(places.state, "physionet"),
        PhysioNetClient(base_url=project.url, username=username, password=password) as client,
    ):
        known = bool(username) or requests.utils.get_netrc_auth(project.url) is not None
        try:
            chosen = _choose(_list(client, project), include, project)
            files = [(path, digest, _place(path, places)) for path, digest in chosen]
            with Progress(f"{project.name} {project.version}", len(files), "files", terminal) as bar:
                for path, digest, target in files:
                    if not target.exists() or sha256_of(target) != digest:
                        _fetch(client, project, path, digest, target, places.state)
                    bar.step()
        except (requests.RequestException, PhysioNetAPIError) as error:
            raise TransientError(_explain(error, project, known)) from error
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise TransientError(
                f"{project.name}: {error.strerror}, below {places.dicom} or {places.state}; what was fetched is kept: "
                "make room and run again"
            ) from error
    with atomic_write(places.record) as part:
        rows = [f"{path}\t{target}\t{target.stat().st_size}\t{digest}\n" for path, digest, target in files]
        part.write_text("path\tfile\tbytes\tsha256\n" + "".join(rows))
    return len(files)


def _list(client: PhysioNetClient, project: Project) -> list[tuple[str, str]]:
    """Path and SHA-256 of every file of the project."""
    try:
        entries: list[tuple[str, str]] = _get_file_manifest(client, project.name, project.version)
    except requests.HTTPError as error:
        if error.response is None or error.response.status_code != 404:
            raise
        versions = [version.version for version in client.projects.list_versions(project.name)]
        raise UserError(
            f"{project.url} has no version {project.version} of {project.name}; it has {', '.join(versions) or 'none'}"
        ) from error
    if not entries or not all(re.fullmatch("[0-9a-f]{64}", digest) for _, digest in entries):
        raise UserError(
            f"{project.url}: what came for SHA256SUMS.txt of {project.name} {project.version} is no list of digests"
        )
    return entries


def _choose(entries: list[tuple[str, str]], include: list[str], project: Project) -> list[tuple[str, str]]:
    """The entries that `include` names. Raises `UserError` if a part of it names none."""
    chosen: dict[str, str] = {}
    for wanted in include:
        matches = _matcher(wanted)
        found = {path: digest for path, digest in entries if matches(path)}
        if not found:
            raise UserError(
                f"config: physionet.include: {wanted!r} names nothing in {project.name} {project.version}; "
                "folders, patients and studies are written as in its paths: p10, p10036337, s91664836"
            )
        chosen |= found
    return sorted(chosen.items())


def _matcher(wanted: str) -> Callable[[str], object]:
    if set(wanted) & set("*?["):
        return re.compile(fnmatch.translate(wanted)).match
    parts = f"/{wanted.strip('/')}/"
    return lambda path: parts in f"/{path}/"


def _place(path: str, places: Places) -> Path:
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise UserError(f"{path!r} in the list of PhysioNet leads out of the project: nothing was fetched")
    return places.dicom / path.removeprefix(DICOM) if path.startswith(DICOM) else places.tables / path


def _fetch(client: PhysioNetClient, project: Project, path: str, digest: str, target: Path, state: Path) -> None:
    """Bring one file to `target`. A transfer that breaks off goes on, now and in later calls, where it was."""
    staged = state / project.name / project.version / path
    staged.parent.mkdir(parents=True, exist_ok=True)
    url = f"{project.url}/files/{project.name}/{project.version}/{path}"
    for left in reversed(range(TRIES)):
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # its bars are not for a log
                _download_file(url, staged, digest, client.session)
            break
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            if not left:
                raise
        except ValueError as error:  # the package's word for a digest that is wrong; it has removed the file
            if not left:
                raise UserError(f"{url}: {one_line(error)}: what the server sends is not what it lists") from error
    with atomic_write(target) as part:
        shutil.move(staged, part)


def _explain(error: Exception, project: Project, known: bool) -> str:
    """One line for what the server or the network says; it knows no more of who asks than whether they said so."""
    response = getattr(error, "response", None)
    words = one_line(error)
    status = response.status_code if response is not None else 403 if isinstance(error, ForbiddenError) else None
    what = f"{project.name} {project.version}"
    if status in (401, 403) and not known:
        return (
            f"{what}: PhysioNet wants to know who asks ({status}): set PHYSIONET_USERNAME and PHYSIONET_PASSWORD "
            f"in the environment, or put the host's login into ~/.netrc"
        )
    if status == 401:
        return f"{what}: PhysioNet refuses the login (401): mend PHYSIONET_USERNAME and PHYSIONET_PASSWORD, or ~/.netrc"
    if status == 403:
        return f"{what}: your account may not read it (403): sign its data use agreement at {project.page}#files"
    if isinstance(error, NotFoundError):
        return f"{project.url} has no project {project.name}: mend physionet.project ({words})"
    if status is not None or isinstance(error, PhysioNetAPIError):
        return f"{what}: PhysioNet answers {words}; what was fetched is kept: run again later"
    while error.__context__ is not None:
        error = error.__context__  # type: ignore[assignment]
    return (
        f"{project.url}: cannot be reached, or the connection broke off: {one_line(error)}; what was fetched is kept: "
        "run again where the internet can be reached (on a cluster, the login node)"
    )
