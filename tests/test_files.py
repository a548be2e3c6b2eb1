import io
import os

import pytest

from echo_embeddings.core import progress
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.files import atomic_write
from echo_embeddings.core.locks import exclusive_lock
from echo_embeddings.core.names import decode_name, encode_name, one_line


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


def test_two_runs_on_one_folder(tmp_path):
    with (
        exclusive_lock(tmp_path, "p10"),
        pytest.raises(UserError, match="p10: another run"),
        exclusive_lock(tmp_path, "p10"),
    ):
        pass
    with exclusive_lock(tmp_path, "p10"):  # free again
        pass


def test_progress_says_something_before_the_first_item(monkeypatch):
    monkeypatch.setattr(progress, "LIVE_EVERY", 0.0)
    terminal = io.StringIO()
    with progress.Progress("p10", 5, "clips", terminal) as shown:
        shown.step(0)
        shown.step(2)
    assert "p10: 0 of 5 clips" in terminal.getvalue()
    assert "p10: 2 of 5 clips, " in terminal.getvalue()
