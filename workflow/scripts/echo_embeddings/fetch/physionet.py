"""Tables and chosen DICOM of a PhysioNet project: each whole, or not there.

A file lies in a state directory until its digest is the one that the project lists, and is moved from there.
PHYSIONET_USERNAME and PHYSIONET_PASSWORD, or else ~/.netrc, say who asks; they are sent to the server and go nowhere
else.
"""

import fnmatch
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

import requests

from ..core.errors import TransientError, UserError
from ..core.files import FULL, atomic_write, sha256_of
from ..core.locks import exclusive_lock
from ..core.names import one_line
from ..core.progress import Progress
from ..core.safe_path import inside
from . import download

DICOM = "files/"  # where MIMIC's projects keep it; what lies elsewhere is a table
# PhysioNet takes a login from programs that it knows, and answers others with 403. This is how its own client begins.
AGENT = "PhysioNet-Python-Client/1.0 (echo-embeddings)"
TRIES = 3  # of a file that came with another digest
LIST = 2**28  # bytes; the most that a list of a project's files may have, four times that of MIMIC-IV-Echo
LARGEST = 10**11  # bytes; the most that a file of a project may have


@dataclass(frozen=True)
class Project:
    """A published version of a project."""

    url: str  # of PhysioNet, or a mirror
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def page(self) -> str:
        """Where its data use agreement is signed."""
        return f"{self.url}/content/{self.name}/{self.version}/"

    def address(self, path: str) -> str:
        """Where its file `path` is fetched from."""
        return f"{self.url}/files/{self.name}/{self.version}/{quote(path)}"


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
    with exclusive_lock(places.state, "physionet"), _log_in() as session:
        try:
            chosen = _choose(_list(session, project, places.state), include, project)
            files = [(path, digest, _place(path, places, project)) for path, digest in chosen]
            with Progress(str(project), len(files), "files", terminal) as bar:
                for path, digest, target in files:
                    if not target.exists() or sha256_of(target) != digest:
                        _fetch(session, project, path, digest, target, places.state)
                    bar.step()
        except download.TransferError as error:
            known = session.auth is not None or requests.utils.get_netrc_auth(project.url) is not None
            failure = UserError if error.final else TransientError
            raise failure(_explain(error, project, known)) from error
        except requests.RequestException as error:  # an OSError, so this comes first
            raise UserError(f"{project.url}: {one_line(error)}; correct physionet.url") from error
        except OSError as error:
            where = error.filename or f"below {places.dicom} or {places.state}"
            advice = "make room" if error.errno in FULL else "correct that"
            failure = TransientError if error.errno in FULL else UserError
            raise failure(
                f"{project.name}: {error.strerror}, {where}; what was fetched is kept: {advice} and run again"
            ) from error
    with atomic_write(places.record) as part:
        rows = [f"{path}\t{target}\t{target.stat().st_size}\t{digest}\n" for path, digest, target in files]
        part.write_text("path\tfile\tbytes\tsha256\n" + "".join(rows))
    return len(files)


def _log_in() -> requests.Session:
    """A session of the user whom the environment names; without one, requests looks into ~/.netrc by itself."""
    username, password = os.environ.get("PHYSIONET_USERNAME"), os.environ.get("PHYSIONET_PASSWORD")
    if bool(username) != bool(password):
        raise UserError("PHYSIONET_USERNAME and PHYSIONET_PASSWORD: one of the two is missing; set both or neither")
    session = requests.Session()
    session.headers["User-Agent"] = AGENT
    if username and password:  # as bytes: text would have to be Latin-1
        session.auth = requests.auth.HTTPBasicAuth(username.encode(), password.encode())
    return session


def _list(session: requests.Session, project: Project, state: Path) -> list[tuple[str, str]]:
    """Path and SHA-256 of every file of the project."""
    try:
        text = _read(session, project.address("SHA256SUMS.txt"), state)
    except download.TransferError as error:
        if error.status != 404:
            raise
        versions = _versions(session, project, state)
        raise UserError(
            f"{project.url} has no version {project.version} of {project.name}; it has {', '.join(versions) or 'none'}"
        ) from error
    lines = [re.fullmatch(r"([0-9a-f]{64})\s+(\S.*)", line.strip()) for line in text.splitlines() if line.strip()]
    entries = [(line[2], line[1]) for line in lines if line]
    if not entries or len(entries) < len(lines):
        raise UserError(f"{project.url}: what came for SHA256SUMS.txt of {project} is no list of digests")
    return entries


def _versions(session: requests.Session, project: Project, state: Path) -> list[str]:
    """The versions that are published of a project."""
    try:
        text = _read(session, f"{project.url}/api/v1/projects/{project.name}/versions/", state)
        return [version["version"] for version in json.loads(text)]
    except download.TransferError as error:
        if error.status != 404:
            raise
        raise UserError(f"{project.url} has no project {project.name}: correct physionet.project") from error
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(f"{project.url}: what came for the versions of {project.name} is no list of them") from error


def _read(session: requests.Session, url: str, state: Path) -> str:
    """The text at `url`, fetched through the state directory."""
    part = state / "list"
    try:
        download.transfer(session, url, part, limit=LIST)
        return part.read_text(encoding="utf-8", errors="surrogateescape")
    finally:
        part.unlink(missing_ok=True)
        download.record_of(part).unlink(missing_ok=True)


def _choose(entries: list[tuple[str, str]], include: list[str], project: Project) -> list[tuple[str, str]]:
    """The entries that `include` names. Raises `UserError` if a part of it names none."""
    chosen: dict[str, str] = {}
    for wanted in include:
        matches = _matcher(wanted)
        found = {path: digest for path, digest in entries if matches(path)}
        if not found:
            raise UserError(
                f"config: physionet.include: {wanted!r} names nothing in {project}; "
                "folders, patients and studies are written as in its paths: p10, p10036337, s91664836"
            )
        chosen |= found
    return sorted(chosen.items())


def _matcher(wanted: str) -> Callable[[str], object]:
    if set(wanted) & set("*?["):
        return re.compile(fnmatch.translate(wanted)).match
    parts = f"/{wanted.strip('/')}/"
    return lambda path: parts in f"/{path}/"


def _place(path: str, places: Places, project: Project) -> Path:
    """Where the file `path` of the project goes. Raises `UserError` if that is neither below DICOM nor tables."""
    try:
        if path.startswith(DICOM):
            return inside(places.dicom, path.removeprefix(DICOM))
        return inside(places.tables, path)
    except UserError as error:
        raise UserError(
            f"{path!r} in SHA256SUMS.txt of {project} leads out of the project: {error}; nothing was fetched"
        ) from error


def _fetch(session: requests.Session, project: Project, path: str, digest: str, target: Path, state: Path) -> None:
    """Bring one file to `target`. A transfer that breaks off goes on, now and in later calls, where it was."""
    staged = inside(state / project.name / project.version, path)
    staged.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(TRIES):
        download.transfer(session, project.address(path), staged, limit=LARGEST)
        if sha256_of(staged) == digest:
            break
        staged.unlink()
    else:
        raise UserError(f"{project.address(path)}: its SHA-256 is wrong: what the server sends is not what it lists")
    with atomic_write(target) as part:
        shutil.move(staged, part)
    download.record_of(staged).unlink()


def _explain(error: download.TransferError, project: Project, known: bool) -> str:
    """One line for what the server or the network says; it knows no more of who asks than whether they said so."""
    if error.status in (401, 403) and not known:
        return (
            f"{project}: PhysioNet wants to know who asks ({error.status}): set PHYSIONET_USERNAME and "
            "PHYSIONET_PASSWORD in the environment, or put the host's login into ~/.netrc"
        )
    if error.status == 401:
        return (
            f"{project}: PhysioNet refuses the login (401): correct PHYSIONET_USERNAME and PHYSIONET_PASSWORD, "
            "or ~/.netrc"
        )
    if error.status == 403:
        return f"{project}: your account may not read it (403): sign its data use agreement at {project.page}#files"
    if error.status is not None or error.final:
        return f"{project}: {error.url}: {error}; what was fetched is kept: run again later"
    return (
        f"{project.url}: cannot be reached, or the connection broke off: {error}; what was fetched is kept: "
        "run again where the internet can be reached (on a cluster, the login node)"
    )
