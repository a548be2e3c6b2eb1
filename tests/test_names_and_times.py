"""Files and folders with names and times that a collection seldom has: each is a row or one line, and stops nothing."""

import os
import shutil
import zipfile
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
from snakemake.io import PeriodicityDetector
from snakemake.pathvars import PATHVAR_REGEX

from echo_embeddings.collection.folders import find_folders
from echo_embeddings.collection.kinds import mp4_name
from echo_embeddings.collection.units import Folder
from echo_embeddings.convert.folder import convert_file
from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.files import PART, atomic_write
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.names import decode_name, encode_name
from echo_embeddings.core.settings import Tables
from echo_embeddings.tables.join import files_table, wanted_keys
from echo_embeddings.tools import collection_checks
from testing.conversion import SETTINGS, convert_folder, paths_in
from testing.corpus import CINE

LONGEST = 255  # bytes of a name, on any file system in use
LONGEST_FOLDER = 200
STILL = bytes(128) + b"DICM"


def put(directory: Path, *names: str | bytes, content: Path | bytes = CINE["small"]) -> Folder:
    """Files of that content in a folder; DICOM clips unless `content` says otherwise."""
    for name in names:
        path = directory / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            shutil.copy(content, path)
    return Folder("p10", str(directory))


def left_over(top: Path) -> list[str]:
    return [path.name for path in top.rglob(f"*{PART}")]


# --- names of files ---------------------------------------------------------------------------------


def test_a_name_as_long_as_can_be_is_written_whole(tmp_path):
    path = tmp_path / ("x" * LONGEST)
    with atomic_write(path) as part:
        part.write_text("all of it")
    assert path.read_text() == "all of it"
    assert os.listdir(tmp_path) == [path.name]


def test_what_version_0_1_0_left_half_written_goes(tmp_path):
    (tmp_path / "x.pt.part").write_text("half")
    with atomic_write(tmp_path / "x.pt") as part:
        part.write_text("whole")
    assert os.listdir(tmp_path) == ["x.pt"]


def test_names_as_long_as_can_be_are_rows(tmp_path):
    """With .dcm the MP4's name is no longer than the DICOM's; without it is, and with what is to be escaped."""
    clip, bare, escaped = "a" * (LONGEST - 4) + ".dcm", "b" * LONGEST, b"\xe9" * 100 + b".dcm"
    folder = put(tmp_path / "p10", clip, bare, escaped, "fine.dcm")
    put(tmp_path / "p10", "r" * (LONGEST - 4) + ".pdf", content=b"%PDF")
    paths = paths_in(tmp_path / "results")
    rows = convert_folder(folder, paths)
    assert {path: row.status for path, row in rows.items()} == {
        clip: "converted",
        bare: "failed",
        encode_name(os.fsdecode(escaped)): "failed",
        "fine.dcm": "converted",
        "r" * (LONGEST - 4) + ".pdf": "skipped",
    }
    assert rows[bare].reason == "its MP4 cannot be called as it would be: File name too long; rename the DICOM"
    assert not left_over(tmp_path)
    assert convert_folder(folder, paths) == rows


def test_doctor_says_how_many_names_are_too_long(tmp_path):
    folder = put(tmp_path / "p10", "a" * (LONGEST - 4) + ".dcm", "b" * LONGEST, b"\xe9" * 100, content=STILL)
    (found,) = collection_checks.long_names([folder], str(tmp_path))
    assert found.says.startswith("2 would have an MP4 whose name is longer than 255 bytes, as p10/bbb")
    assert not list(collection_checks.long_names([put(tmp_path / "p11", "a.dcm", content=STILL)], str(tmp_path)))


def test_a_directory_that_has_the_name_of_an_mp4_is_a_row(tmp_path):
    inside = "a.mp4/b.mp4/c.dcm"
    folder = put(tmp_path / "p10", "a.dcm", inside, "fine.dcm")
    paths = paths_in(tmp_path / "results")
    rows = convert_folder(folder, paths)
    assert {path: row.status for path, row in rows.items()} == {
        "a.dcm": "failed", inside: "failed", "fine.dcm": "converted",
    }  # fmt: skip
    assert rows["a.dcm"].reason == f"name collision with {inside}"
    assert rows[inside].reason == "name collision with a.dcm"
    # When one of the two is gone, nothing of the other is in the way, whichever was there first.
    os.unlink(tmp_path / "p10" / inside)
    assert convert_folder(folder, paths)["a.dcm"].status == "converted"
    put(tmp_path / "p10", inside)
    os.unlink(tmp_path / "p10/a.dcm")
    assert convert_folder(folder, paths)[inside].status == "converted"
    put(tmp_path / "p10", "a.dcm")
    os.unlink(tmp_path / "p10" / inside)
    assert convert_folder(folder, paths)["a.dcm"].status == "converted"


PARTS = st.one_of(
    st.binary(min_size=1, max_size=LONGEST).map(os.fsdecode),
    st.text(min_size=1, max_size=60),
    st.sampled_from(["a", "a.mp4", "a.dcm", "x" * LONGEST, "\u2028", "~", "-", "%41", " ", "a" * 251 + ".dcm"]),
).filter(lambda name: not set(name) & {"/", "\0"} and name not in (".", ".."))


def fits(name: str) -> bool:
    try:
        return len(os.fsencode(name)) <= LONGEST
    except UnicodeEncodeError:
        return False


@hypothesis.settings(max_examples=80, deadline=None, derandomize=True, database=None)
@hypothesis.given(parts=st.lists(PARTS.filter(fits), min_size=1, max_size=3))
def test_any_name_is_a_row_of_the_manifest(tmp_path_factory, parts):
    """And no error of the job; the row can be read again, and the file can be found by it."""
    top = tmp_path_factory.mktemp("names")
    path = os.path.join(*parts)
    (top / "in").mkdir()
    source = Path(top, "in", path)
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(STILL)
    row = convert_file(str(source), encode_name(path), top / "tree" / mp4_name(path), SETTINGS)
    assert row.status in ("skipped", "failed")
    manifest.write(top / "m.tsv", [row])
    (read,) = manifest.read(top / "m.tsv")
    assert decode_name(read.path) == path
    assert files_table({"p10": top / "m.tsv"})["path"].tolist() == [row.path]
    shutil.rmtree(top)


# --- times ------------------------------------------------------------------------------------------


def with_times(path: Path, times: list[int]) -> Path:
    """A manifest of files that have these times."""
    rows = [Row(f"{i}.dcm", f"{i}.mp4", "converted", "", 20, mtime_ns=time) for i, time in enumerate(times)]
    manifest.write(path, rows)
    return path


@pytest.mark.parametrize("time", [-(10**18), -1, 2**63 - 1, 10**19], ids=["1938", "1969", "2262", "2286"])
def test_a_time_before_1970_or_after_2262(tmp_path, time):
    folder = put(tmp_path / "p10", "a.dcm", "b.dcm")
    os.utime(tmp_path / "p10/a.dcm", ns=(time, time))
    paths = paths_in(tmp_path / "results")
    rows = convert_folder(folder, paths)
    assert {row.status for row in rows.values()} == {"converted"}
    assert rows["a.dcm"].mtime_ns == time
    assert convert_folder(folder, paths) == rows
    assert wanted_keys({"p10": paths.table}, Tables(select="frames > 1"))[0] == {"p10": {"a.mp4", "b.mp4"}}


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True, database=None)
@hypothesis.given(times=st.lists(st.integers(-(2**80), 2**80), min_size=1, max_size=5))
def test_any_time_is_read_by_all_readers_of_a_manifest(tmp_path_factory, times):
    path = with_times(tmp_path_factory.mktemp("times") / "m.tsv", times)
    assert [row.mtime_ns for row in manifest.read(path)] == times
    read = files_table({"p10": path})["mtime_ns"]
    assert read.tolist() == [min(max(time, -(2**63)), 2**63 - 1) for time in times]


# --- names of folders, and archives -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a" * 200, "2020" * 20, "<x>", "site <results>", "x0" * 30, "all", "{a}", "ab-cd" * 19 + "e" * 19 + "ab-cd" * 18],
)
def test_a_folder_name_that_snakemake_reads_otherwise_is_one_line(tmp_path, name):
    put(tmp_path / name, "a.dcm", content=STILL)
    with pytest.raises(UserError, match="rename the folder") as error:
        find_folders(str(tmp_path), [])
    assert repr(name) in str(error.value)
    assert "\n" not in str(error.value)


PERIODIC = st.builds(
    lambda head, part, times: head + part * times,
    st.text("ab", max_size=2),
    st.text("ab0", min_size=1, max_size=3),
    st.integers(15, 60),
)


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True, database=None)
@hypothesis.given(name=(PARTS | PERIODIC | st.builds("{}<{}>".format, st.text("ab"), st.text("aZ0_-"))).filter(fits))
def test_folder_names_are_refused_where_snakemake_would_and_nowhere_else(tmp_path_factory, name):
    top = tmp_path_factory.mktemp("folders")
    put(top / name, "a.dcm", content=STILL)
    known = encode_name(name)
    refused = PeriodicityDetector().is_periodic(known) or PATHVAR_REGEX.search(known) or set(known) & set("{}")
    refused = refused or len(os.fsencode(known)) > LONGEST_FOLDER
    try:
        assert list(find_folders(str(top), [])) == [known]
        assert not refused
    except UserError as error:
        assert refused, error
    shutil.rmtree(top)


def test_an_archive_whose_entry_has_no_name_is_looked_at(tmp_path):
    put(tmp_path / "p10", "a.dcm", content=STILL)
    for folder, content in (("p11", b"text"), ("p12", STILL)):
        (tmp_path / folder).mkdir()
        with zipfile.ZipFile(tmp_path / folder / "x.zip", "w") as archive:
            archive.writestr(zipfile.ZipInfo("a"), content)
        path = tmp_path / folder / "x.zip"
        path.write_bytes(path.read_bytes().replace(b"a", b"\0"))  # a name that ends before its first letter
    found = find_folders(str(tmp_path), [])
    assert list(found) == ["p10", "p11", "p12"]
    (row,) = convert_folder(found["p11"], paths_in(tmp_path / "out")).values()
    assert row.reason == "not DICOM"
    with pytest.raises(UserError, match=r"p12/x.zip: DICOM in an archive"):
        convert_folder(found["p12"], paths_in(tmp_path / "out"))
