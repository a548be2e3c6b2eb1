"""One file over HTTP: under its name only when it is whole, and what was fetched is kept between tries."""

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import requests
import urllib3.exceptions

from ..core.errors import TransientError, UserError
from ..core.files import FULL, PART, atomic_write, sha256_of
from ..core.locks import file_lock
from ..core.names import one_line
from ..core.progress import Progress

TIMEOUT = (20.0, 60.0)  # seconds until there is a connection, and until the next byte
TRIES = 5  # in a row that bring not one byte
PAUSE = 1.0  # seconds before the next try; doubled after each one that brought nothing
BLOCK = 1 << 20  # bytes
MEGABYTE = 10**6
PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that another try may change
REFUSALS = {401: "wants a login", 403: "refuses access", 404: "has no such file", 410: "has the file no more"}


class TransferError(Exception):
    """Why a file did not come. `final` says that another try would bring the same."""

    url = ""  # of the file; `transfer` sets it

    def __init__(self, words: str, status: int | None = None, final: bool = False) -> None:
        """`status` is the server's answer, None where there was none or what it says is not the reason."""
        super().__init__(words)
        self.status, self.final = status, final


@dataclass(frozen=True)
class _Source:
    """What the part file is a part of; it lies beside it, so that another file's rest is never put behind it."""

    url: str
    size: int | None  # bytes; None where the server did not say, and then no later try goes on with the part
    validator: str | None  # a strong ETag or else Last-Modified (RFC 9110, 13.1.5), None where there is neither


def fetch(url: str, path: Path, sha256: str | None = None, terminal: TextIO | None = None) -> None:
    """Fetch `url` into the file `path`, unless it is there; it takes its name only when it is whole.

    A transfer that breaks off goes on where it was, in this call and in later ones: the bytes so far lie in
    `{path}.part`. The size is that which the server states, and the content has the digest `sha256`, where one
    is given. One process at a time fetches a file, on whatever host: the others wait, and find it there.
    `terminal` is for a live line. Raises `UserError`, one line, where it does not come to its end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(path.name + ".lock")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(file_lock(lock, wait=False))
        except BlockingIOError:
            print(f"{path}: another job is fetching it: waiting for that", flush=True)
            held.enter_context(file_lock(lock))
        if path.exists():
            print(f"{path}: it is there: left as it is", flush=True)
        else:
            _fetch(url, path, sha256, terminal)
        lock.unlink(missing_ok=True)  # from here on whoever takes a lock finds the file


def _fetch(url: str, path: Path, sha256: str | None, terminal: TextIO | None) -> None:
    part = path.with_name(path.name + PART)
    try:
        with requests.Session() as session:
            transfer(session, url, part, terminal=terminal)
        if sha256 is not None:
            _check(part, sha256, url)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        record_of(part).unlink()
    except TransferError as error:
        if error.final:
            raise UserError(f"{url}: {error}; correct the url, or get the file by hand and put it at {path}") from error
        raise TransientError(
            f"{url}: cannot be fetched: {error}; {_length(part):,} bytes are kept in {part}: run again where the "
            f"internet can be reached (on a cluster, the login node), or put the file at {path} by hand"
        ) from error
    except requests.RequestException as error:  # an OSError, so this comes first
        raise UserError(f"{url}: cannot be fetched: {_reason(error)}; correct the url") from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise TransientError(
            f"{part}: {error.strerror}; {_length(part):,} bytes are kept there: make room and run again"
        ) from error


def transfer(
    session: requests.Session, url: str, part: Path, *, limit: int | None = None, terminal: TextIO | None = None
) -> None:
    """Bring `part`, a file in the making, to its full length, in as many tries as it takes.

    It goes on with what an earlier call left; what that is a part of stands in `record_of(part)`, which whoever
    takes the whole file removes. `limit` is the most bytes that the file may have; only where there is one, a body
    is taken whose length the server does not say, but whose end it marks (`Transfer-Encoding: chunked`). `terminal`
    is for a live line. Raises `TransferError` where it leads nowhere, `UserError` where the disk has no room for
    the file, and `requests.RequestException` where the address is none.
    """
    idle = 0
    while True:
        before = _length(part)
        try:
            return _try(session, url, part, limit, terminal)
        except (TransferError, requests.ConnectionError, requests.Timeout) as error:
            if not isinstance(error, TransferError):
                error = TransferError(_reason(error))
            idle = 0 if _length(part) > before else idle + 1
            if error.final or idle == TRIES:
                error.url = url
                raise error from None
            print(f"{url}: {error}; trying again after {_length(part):,} bytes", flush=True)
            time.sleep(PAUSE * 2 ** max(0, idle - 1))


def _try(session: requests.Session, url: str, part: Path, limit: int | None, terminal: TextIO | None) -> None:
    known = _read(part)
    have = _length(part) if known is not None and known.url == url and known.size is not None else 0
    if known is not None and have == known.size and part.exists():  # stopped between the last byte and the renaming
        return
    headers = {"Accept-Encoding": "identity"}
    if known is not None and have:
        headers["Range"] = f"bytes={have}-"
        if known.validator:
            headers["If-Range"] = known.validator
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        _refuse(response, url)
        if response.status_code == 416:
            part.unlink()
            raise TransferError("the file on the server is shorter than before: starting again")
        start, source = _describe(response, url, limit)
        # A server that ignores ranges sends the whole file again: what we have passes by, if it is surely the same.
        if have and (source != known or start not in (0, have) or (start == 0 and source.validator is None)):
            part.unlink()
            if start:
                raise TransferError("the file on the server is another than before: starting again")
            print(f"{url}: the file on the server may be another than before: starting again", flush=True)
            have = 0
        _receive(response, source, part, have, have - start, limit, terminal)


def _refuse(response: requests.Response, url: str) -> None:
    """Raise unless the answer brings the file, or says that the part is longer than it."""
    status = response.status_code
    if status in PASSING:
        raise TransferError(f"the server answers {status} {response.reason}", status)
    page = response.headers.get("Content-Type", "").startswith("text/html") and not url.endswith(".html")
    if status == 416 or (status in (200, 206) and not page):
        return
    words = "sends a web page, not the file" if status == 200 else REFUSALS.get(status, "does not give the file")
    raise TransferError(f"the server {words} ({status})", status, final=True)


def _describe(response: requests.Response, url: str, limit: int | None) -> tuple[int, _Source]:
    """The byte at which the answer starts, and what it is of."""
    headers = response.headers
    etag = headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
    if response.status_code == 206:
        stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
    else:
        stated = re.fullmatch(r"()(\d+)", headers.get("Content-Length", ""))
        if stated is None and limit is not None and headers.get("Transfer-Encoding", "").lower() == "chunked":
            return 0, _Source(url, None, validator)
    if stated is None:
        raise TransferError(
            "the server does not say how long the file is, so a part would pass for the whole", final=True
        )
    size = int(stated[2])
    if limit is not None and size > limit:
        raise TransferError(f"the server has {size:,} bytes of it, where {limit:,} are the most", final=True)
    return int(stated[1] or 0), _Source(url, size, validator)


def _receive(
    response: requests.Response,
    source: _Source,
    part: Path,
    have: int,
    skip: int,
    limit: int | None,
    terminal: TextIO | None,
) -> None:
    """Write the answer behind the `have` bytes of `part`, but for its first `skip` bytes, which are the same."""
    left = 0 if source.size is None else source.size - have
    free = shutil.disk_usage(part.parent).free
    if left > free:
        raise TransientError(
            f"{part.parent}: {source.url} takes {left:,} bytes more and {free:,} are free; make room and run again "
            "(what was fetched is kept)"
        )
    if not have:
        part.unlink(missing_ok=True)
        with atomic_write(record_of(part)) as record:
            record.write_text(json.dumps(asdict(source)))
    name = part.name.removesuffix(PART)
    with (
        part.open("ab") as file,
        Progress(name, -(-left // MEGABYTE), "MB", terminal, before=have // MEGABYTE) as bar,
    ):
        written = 0
        for block in _blocks(response, limit):
            new = block[skip:]
            skip -= len(block) - len(new)
            file.write(new)
            bar.step((written + len(new)) // MEGABYTE - written // MEGABYTE)
            written += len(new)
    if source.size is not None and _length(part) != source.size:
        raise TransferError(f"{_length(part):,} bytes came of {source.size:,}")


def _blocks(response: requests.Response, limit: int | None) -> Iterator[bytes]:
    """The body as it comes in; `iter_content` would keep the last bytes before a break to itself."""
    came = 0
    try:
        while block := response.raw.read1(BLOCK, decode_content=False):
            came += len(block)
            if limit is not None and came > limit:
                raise TransferError(f"the server sends more than {limit:,} bytes, which are the most", final=True)
            yield block
    except urllib3.exceptions.HTTPError as error:
        raise TransferError(_reason(error)) from error


def _check(part: Path, sha256: str, url: str) -> None:
    digest = sha256_of(part)
    if digest != sha256:
        raise UserError(
            f"{part}: SHA-256 is {digest}, the registry says {sha256} of {url}; "
            "delete it to fetch it again, or correct the registry: it is kept as it came"
        )


def record_of(part: Path) -> Path:
    """The file that says what `part` is a part of."""
    return part.with_name(part.name + ".json")


def _read(part: Path) -> _Source | None:
    """What the part file is a part of, None where that is not known."""
    try:
        return _Source(**json.loads(record_of(part).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _reason(error: BaseException) -> str:
    """What lies at the bottom of an error of `requests`, whose own words repeat every layer's."""
    while error.__context__ is not None:
        error = error.__context__
    return one_line(error)
