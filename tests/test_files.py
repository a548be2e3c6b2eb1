import contextlib
import errno
import io
import os
import platform
import signal
import subprocess

import pytest

from echo_embeddings.core import locks, progress
from echo_embeddings.core.errors import TransientError, UserError
from echo_embeddings.core.files import atomic_write
from echo_embeddings.core.locks import exclusive_lock
from echo_embeddings.core.names import decode_name, encode_name, one_line
from testing.processes import small_disk, start_python


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"p10/s1/a b.dcm", "p10/s1/a b.dcm"),
        ("Müller/ß.dcm".encode(), "Müller/ß.dcm"),
        (b"a\tb\nc%d", "a%09b%0Ac%25d"),
        (b"caf\xe9", "caf%E9"),
        (b"\x7f\x00x"[:1], "%7F"),
        ("\u2028".encode(), "%E2%80%A8"),
    ],
)
def test_names_are_printable_and_reversible(raw, name):
    assert encode_name(os.fsdecode(raw)) == name
    assert os.fsencode(decode_name(name)) == raw


def test_different_names_stay_different():
    assert encode_name("%09") != encode_name("\t")


def test_one_line():
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line(ValueError()) == "ValueError"


def test_whole_replaces_only_when_the_block_ends_well(tmp_path):
    path = tmp_path / "deep/file"
    with atomic_write(path) as part:
        part.write_text("old")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_write(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["file"]


WITHOUT_FLOCK = """
import ctypes, errno, struct, sys
from pathlib import Path
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.locks import exclusive_lock

# A filter of system calls that answers flock as a file system without locks does.
error, flock = int(sys.argv[2]), 73
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, flock), (0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0
try:
    with exclusive_lock(Path(sys.argv[1]), "p10"):
        print("locked")
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of the system call is that of x86-64")
@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_nothing_is_taken_for_one(tmp_path, error):
    for _ in range(2):  # the file of an earlier job is no lock
        said = start_python("-c", WITHOUT_FLOCK, tmp_path / "p10", str(error), stdout=subprocess.PIPE).communicate()[0]
        assert said.startswith(f"{tmp_path}/p10/lock: its file system has no locks ({os.strerror(error)}), ")
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("ext4", "rw,relatime", None),
        ("lustre", "rw,flock,lazystatfs", None),
        ("lustre", "rw,localflock", "lustre mounted with localflock"),
        ("nfs", "rw,vers=3,nolock,local_lock=all", "nfs mounted with local_lock=all, nolock"),
        ("nfs4", "rw,vers=4.2,local_lock=none", None),
        ("beegfs", "rw", "BeeGFS, unless its clients have tuneUseGlobalFileLocks = true"),
    ],
)
def test_locks_that_other_machines_do_not_see(monkeypatch, kind, options, says):
    monkeypatch.setattr(locks, "_mount", lambda path: (kind, set(options.split(","))))
    assert locks.reach("results") == says


def test_the_file_system_of_a_directory(tmp_path):
    with small_disk(tmp_path / "a disk", "1m"):
        (tmp_path / "a disk/deep").mkdir()
        kind, options = locks._mount(str(tmp_path / "a disk/deep"))
        assert (kind, "rw" in options) == ("tmpfs", True)


@pytest.mark.parametrize("damaged", [None, b"", b"\xff\n\x00"])
def test_two_runs_on_one_folder(tmp_path, damaged):
    with exclusive_lock(tmp_path, "p10"):
        if damaged is not None:
            (tmp_path / "owner").write_bytes(damaged)
        said = r"p10: another run is at work on this folder \((?!str).*\); wait for it"
        with pytest.raises(UserError, match=said) as error, exclusive_lock(tmp_path, "p10"):
            pass
        assert "\n" not in str(error.value)
    with exclusive_lock(tmp_path, "p10"):  # free again
        pass


# Killed between the fork and the start of a program, when its child has all that it had.
ORPHANED = """
import os, signal, sys, time
from pathlib import Path
from echo_embeddings.core.locks import exclusive_lock

with exclusive_lock(Path(sys.argv[1]), "p10"):
    if not os.fork():
        time.sleep(float(sys.argv[2]))
        os._exit(0)
    print("killed", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("seconds", "free"), [("0.3", True), ("60", False)])
def test_what_a_killed_run_was_about_to_start_is_waited_for_and_another_run_is_not(tmp_path, seconds, free):
    process = start_python("-c", ORPHANED, tmp_path, seconds, stdout=subprocess.PIPE)
    process.stdout.readline()
    process.wait()
    refused = contextlib.nullcontext() if free else pytest.raises(TransientError, match="another run is at work")
    with refused, exclusive_lock(tmp_path, "p10"):
        pass
    if not free:
        os.killpg(process.pid, signal.SIGKILL)


def test_progress_says_something_before_the_first_item(monkeypatch):
    monkeypatch.setattr(progress, "LIVE_EVERY", 0.0)
    terminal = io.StringIO()
    with progress.Progress("p10", 5, "clips", terminal) as shown:
        shown.step(0)
        shown.step(2)
    assert "p10: 0 of 5 clips" in terminal.getvalue()
    assert "p10: 2 of 5 clips, " in terminal.getvalue()
