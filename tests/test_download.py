"""The downloader against a server with the faults of real ones: whole, or one line and nothing lost."""

import hashlib
import os
import threading
import types

import pytest

from echo_embeddings.core.errors import UserError
from echo_embeddings.fetch import download
from testing.processes import PATIENCE, small_disk, start_python, until
from testing.server import File, serving

CONTENT = os.urandom(200_000)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setattr(download, "TIMEOUT", (PATIENCE, PATIENCE))
    with serving() as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights/w.pt"


def fetch(server, path, file=None, **arguments):
    if file is not None:
        server.files["/w.pt"] = file
    download.fetch(f"{server.url}/w.pt", path, **arguments)


def refused(server, path, file=None, **arguments) -> str:
    """The one line that it stops with."""
    with pytest.raises(UserError) as error:
        fetch(server, path, file, **arguments)
    assert "\n" not in str(error.value)
    assert not path.exists()
    return str(error.value)


def part(path):
    return path.with_name("w.pt.part")


def test_a_file_whole_and_nothing_else_beside_it(server, path, capsys):
    fetch(server, path, File(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["w.pt"]
    fetch(server, path, File(b"another"))
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_connection_that_drops_goes_on_where_it_was(server, path):
    fetch(server, path, File(CONTENT, drop=70_000))
    assert path.read_bytes() == CONTENT
    assert [h.get("Range") for h in server.asked("/w.pt")] == [None, "bytes=70000-", "bytes=140000-"]


def test_what_an_earlier_run_fetched_is_not_fetched_again(server, path, monkeypatch):
    server.files["/w.pt"] = File(CONTENT, drop=150_000, drops=1)

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(download, "time", types.SimpleNamespace(sleep=interrupt))
        fetch(server, path)
    assert part(path).read_bytes() == CONTENT[:150_000]
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.requests[-1][1]["Range"] == "bytes=150000-"
    assert server.requests[-1][1]["If-Range"] == '"1"'


def leave_a_part(server, path, **arguments):
    """Stop a transfer of CONTENT after about 150,000 bytes."""
    line = refused(server, path, File(CONTENT[:150_000], claims=len(CONTENT), **arguments))
    assert part(path).read_bytes() == CONTENT[: part(path).stat().st_size]
    assert part(path).stat().st_size == 150_000
    return line


def test_a_server_that_lies_about_the_length(server, path):
    line = leave_a_part(server, path)
    assert "cannot be fetched" in line
    assert f"150,000 bytes are kept in {part(path)}" in line
    fetch(server, path, File(CONTENT))
    assert path.read_bytes() == CONTENT


def test_a_server_that_says_less_than_it_has_is_caught_by_the_digest(server, path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    line = refused(server, path, File(CONTENT, claims=1000), sha256=digest)
    assert f"the registry says {digest}" in line
    assert part(path).stat().st_size == 1000
    asked = len(server.requests)
    refused(server, path, sha256=digest)
    assert len(server.requests) == asked  # kept as it came, until somebody decides
    part(path).unlink()
    fetch(server, path, File(CONTENT), sha256=digest)
    assert path.read_bytes() == CONTENT


def test_a_server_that_ignores_ranges(server, path):
    leave_a_part(server, path)
    fetch(server, path, File(CONTENT, ranges=False))
    assert path.read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_and_drops_keeps_what_was_fetched(server, path):
    leave_a_part(server, path)
    refused(server, path, File(CONTENT, ranges=False, drop=90_000))
    assert part(path).read_bytes() == CONTENT[:150_000]


def test_without_a_validator_a_whole_answer_starts_again(server, path):
    leave_a_part(server, path, etag=None)
    other = CONTENT[::-1]
    fetch(server, path, File(other, ranges=False, etag=None))
    assert path.read_bytes() == other


@pytest.mark.parametrize("other", [CONTENT[::-1], CONTENT[:100_000], CONTENT + CONTENT])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changed_meanwhile(server, path, other, ranges):
    leave_a_part(server, path)
    fetch(server, path, File(other, etag='"2"', ranges=ranges))
    assert path.read_bytes() == other


def test_a_file_that_shrank_under_the_same_mark(server, path):
    leave_a_part(server, path)
    fetch(server, path, File(CONTENT[:100_000]))
    assert path.read_bytes() == CONTENT[:100_000]


def test_the_part_of_another_address_is_not_gone_on_with(server, path):
    leave_a_part(server, path)
    server.files["/other.pt"] = File(CONTENT[::-1])
    download.fetch(f"{server.url}/other.pt", path)
    assert path.read_bytes() == CONTENT[::-1]


def test_a_part_of_unknown_origin_is_not_gone_on_with(server, path):
    path.parent.mkdir()
    part(path).write_bytes(b"x" * 1000)
    fetch(server, path, File(CONTENT))
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "wants a login (401)"), (403, "refuses access (403)"), (404, "has no such file (404)"), (418, "(418)")],
)
def test_refusals_are_one_line_at_once_and_the_part_is_kept(server, path, status, words):
    leave_a_part(server, path)
    server.requests.clear()
    line = refused(server, path, File(CONTENT, status=status))
    assert words in line
    assert str(path) in line
    assert len(server.requests) == 1
    assert part(path).read_bytes() == CONTENT[:150_000]


def test_an_answer_that_may_pass_is_asked_for_again(server, path):
    line = refused(server, path, File(CONTENT, status=503))
    assert "answers 503" in line
    assert len(server.requests) == download.TRIES


def test_a_page_in_place_of_the_file(server, path):
    assert "sends a web page" in refused(server, path, File(b"<html>log in</html>", kind="text/html; charset=utf-8"))


def test_no_network(path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.001)
    with serving() as gone:
        pass
    line = refused(gone, path)
    assert "Connection refused" in line
    assert "login node" in line
    with pytest.raises(UserError, match=r"Name or service not known|name resolution"):
        download.fetch("http://nowhere.invalid/w.pt", path)


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not(server, path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", (PATIENCE, 3.0))
    fetch(server, path, File(CONTENT[:16_000], pause=0.2))  # longer than that in all, and never between two bytes
    assert path.read_bytes() == CONTENT[:16_000]
    path.unlink()
    monkeypatch.setattr(download, "TIMEOUT", (PATIENCE, 0.1))
    line = refused(server, path, File(CONTENT[:5000], pause=PATIENCE))
    server.stop_sending()
    assert "timed out" in line


def test_too_little_room_is_seen_before(server, path):
    line = refused(server, path, File(b"1234", claims=10**17))
    assert "are free; make room" in line


def test_a_disk_that_fills_keeps_what_was_fetched(server, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    with small_disk(disk, "160k") as resize:
        # Others fill it meanwhile: it seems to have room.
        monkeypatch.setattr(download, "shutil", types.SimpleNamespace(disk_usage=lambda _: Room))
        path = disk / "w.pt"
        line = refused(server, path, File(CONTENT))
        assert "No space left on device" in line
        have = part(path).stat().st_size
        assert have > 100_000
        assert part(path).read_bytes() == CONTENT[:have]
        resize("1m")
        fetch(server, path)
        assert path.read_bytes() == CONTENT
        assert server.requests[-1][1]["Range"] == f"bytes={have}-"


class Room:
    free = 10**12


def test_jobs_at_once_fetch_it_once(server, path):
    """Threads hold locks of their own, as processes on other hosts do."""
    server.files["/w.pt"] = File(CONTENT, pause=0.001)
    errors = []

    def job():
        try:
            download.fetch(f"{server.url}/w.pt", path)
        except BaseException as error:
            errors.append(error)

    jobs = [threading.Thread(target=job) for _ in range(4)]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()
    assert not errors
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert os.listdir(path.parent) == ["w.pt"]


def test_killed_in_the_middle(server, path):
    """SIGKILL leaves the part, and the lock is free."""
    server.files["/w.pt"] = File(CONTENT, pause=0.005)
    code = (
        "from pathlib import Path; from echo_embeddings.fetch import download; "
        f"download.fetch({server.url!r} + '/w.pt', Path({str(path)!r}))"
    )
    process = start_python("-c", code)
    assert until(lambda: part(path).exists() and part(path).stat().st_size >= 65_536, process)
    process.kill()
    process.wait()
    have = part(path).stat().st_size
    assert not path.exists()
    fetch(server, path, File(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.requests[-1][1]["Range"] == f"bytes={have}-"
