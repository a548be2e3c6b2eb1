import hashlib
import os
import shutil
import socket
import subprocess

import pytest

from echo_embeddings.collection.folders import find_folders
from echo_embeddings.collection.kinds import mp4_name
from echo_embeddings.collection.units import Folder
from echo_embeddings.core.errors import UserError
from echo_embeddings.dicom.header import Skip, read_header
from echo_embeddings.dicom.mark import has_dicom_mark
from testing.conversion import convert_folder, paths_in

DICOM = bytes(128) + b"DICM"


def put(path, content=DICOM):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("path", "mp4"),
    [
        ("s1/1.2.840.55", "s1/1.2.840.55.mp4"),
        ("s1/1.2.840.56", "s1/1.2.840.56.mp4"),
        ("a.dcm", "a.mp4"),
        ("a.DCM", "a.mp4"),
        ("a.dcm.dcm", "a.dcm.mp4"),
        ("a.dicom", "a.dicom.mp4"),
        ("50%\t.dcm", "50%25%09.mp4"),
    ],
)
def test_mp4_name(path, mp4):
    assert mp4_name(path) == mp4


def test_folders_are_those_with_dicom_at_any_depth(tmp_path):
    put(tmp_path / "p11/a/b/c/no_extension")
    put(tmp_path / "p10/x.dcm")
    put(tmp_path / "tables/list.csv", b"x" * 200)
    (tmp_path / "empty").mkdir()
    assert list(find_folders(str(tmp_path), [])) == ["p10", "p11"]
    assert list(find_folders(str(tmp_path), ["p11"])) == ["p11"]


def test_dicom_directly_in_dicom_dir_form_one_folder(tmp_path):
    top = tmp_path / "flat"
    put(top / "a.dcm")
    assert find_folders(str(top), []) == {"flat": Folder("flat", str(top), deep=False)}
    put(top / "p10/b.dcm")
    found = find_folders(str(top), [])
    assert list(found) == ["p10", "flat"]
    assert found["flat"].files() == ["a.dcm"]
    before = found["flat"].survey().fingerprint, found["p10"].survey().fingerprint
    put(top / "p10/c.dcm")
    put(top / "p12/c.dcm")
    assert found["flat"].survey().fingerprint == before[0]
    assert found["p10"].survey().fingerprint != before[1]
    put(top / "d.dcm")
    assert found["flat"].survey().fingerprint != before[0]


@pytest.mark.parametrize(
    ("names", "chosen", "message"),
    [
        ([], [], "no DICOM below"),
        (["p10/a"], ["p12"], "folder 'p12': there is none in dicom_dir"),
        (["all/a"], [], "rename the folder 'all'"),
        (["p{0}/a"], [], "rename the folder"),
        (["top/a", "b"], [], "DICOM files lie directly in"),
        (["p10/a"], ["."], "not the name of a direct sub-folder"),
        (["p10/a"], [".."], "not the name of a direct sub-folder"),
        (["p10/b/a"], ["p10%2Fb"], "not the name of a direct sub-folder"),
    ],
)
def test_unusable_collections(tmp_path, names, chosen, message):
    top = tmp_path / "top"
    top.mkdir()
    for name in names:
        put(top / name)
    with pytest.raises(UserError, match=message):
        find_folders(str(top), chosen)


def pack(directory, kind):
    """The directory's content in an archive beside it, and the directory gone."""
    shutil.make_archive(str(directory), kind, directory)
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("zip", "unzip {} -d {}"),
        ("tar", "tar -xf {} -C {}"),
        ("gztar", "tar -xf {} -C {}"),
        ("xztar", "tar -xf {} -C {}"),
    ],
)
@pytest.mark.parametrize("place", ["p10/a study", "a study"])
def test_archives_of_dicom_are_refused_with_the_line_that_unpacks_them(tmp_path, kind, command, place):
    put(tmp_path / "p11/x")
    put(tmp_path / place / "s1/one.dcm")
    pack(tmp_path / place, kind)
    found = find_folders(str(tmp_path), [])
    name = "p10" if "/" in place else tmp_path.name
    assert sorted(found) == sorted([name, "p11"])
    with pytest.raises(UserError, match="DICOM in an archive; unpack it, and others like it: ") as refused:
        convert_folder(found[name], paths_in(tmp_path.with_name("results")))
    line = str(refused.value).rpartition(": ")[2]
    (made,) = tmp_path.rglob("a study.*")
    assert line == command.format(f"'{made}'", made.parent)
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    if kind != "zip" or shutil.which("unzip"):
        assert done.returncode == 0, done.stderr
        made.unlink()
        assert len(find_folders(str(tmp_path), [])) == 2


def test_an_archive_beside_dicom_is_skipped_by_a_reason_of_its_own(tmp_path):
    put(tmp_path / "p11/x")
    put(tmp_path / "p11/more/one.dcm")
    pack(tmp_path / "p11/more", "zip")
    assert list(find_folders(str(tmp_path), [])) == ["p11"]
    with pytest.raises(Skip, match="an archive of DICOM: unpack it"):
        read_header(str(tmp_path / "p11/more.zip"))


def test_other_archives_and_what_looks_like_one_are_files_like_any_other(tmp_path):
    put(tmp_path / "p11/x")
    put(tmp_path / "tables/list.csv", b"subject_id")
    pack(tmp_path / "tables", "zip")
    (tmp_path / "notes").mkdir()
    content = (tmp_path / "tables.zip").read_bytes()
    put(tmp_path / "notes/cut.zip", content[:30])
    put(tmp_path / "notes/damaged.zip", content.replace(b"subject_id", b"subject_if"))
    # Its job, which looks into them, finds nothing.
    found = find_folders(str(tmp_path), ["notes", "p11"])
    assert {row.reason for row in convert_folder(found["notes"], paths_in(tmp_path / "r")).values()} == {"not DICOM"}


def test_fingerprint_sees_files_come_and_go_at_any_depth_and_no_other_folder(tmp_path):
    put(tmp_path / "p10/a/b/one")
    put(tmp_path / "p11/one")
    found = find_folders(str(tmp_path), [])
    before = {name: folder.survey().fingerprint for name, folder in found.items()}
    put(tmp_path / "p10/a/b/two")
    added = found["p10"].survey().fingerprint
    assert added != before["p10"]
    assert found["p11"].survey().fingerprint == before["p11"]
    (tmp_path / "p10/a/b/two").unlink()
    assert found["p10"].survey().fingerprint not in (added, before["p10"])


@pytest.mark.parametrize("deep", [True, False])
def test_a_link_that_gets_its_file_later_is_seen(tmp_path, deep):
    """As git-annex leaves links to files that it has not fetched; the directory does not change when it has."""
    top = tmp_path / "p10"
    put(top / "one.dcm")
    store = tmp_path / "store"
    store.mkdir()
    os.symlink(store / "two", top / "two.dcm")
    os.symlink("itself", top / "itself")
    folder = Folder("p10", str(top), deep)
    without = folder.survey()
    put(store / "two")
    filled = folder.survey()
    assert (without.files, filled.files) == (3, 3)
    assert without.fingerprint != filled.fingerprint
    # That of a folder in which no link leads nowhere is what it always was.
    said = [b".\0" + str(top.stat().st_mtime_ns).encode()] if deep else [b"itself", b"one.dcm", b"two.dcm"]
    assert filled.fingerprint == hashlib.sha256(b"".join(part + b"\0" for part in said)).hexdigest()


def test_files_in_byte_order_with_odd_ones_and_without_endless_loops(tmp_path):
    top = tmp_path / "p10"
    put(top / "b/2")
    put(top / "a b.dcm")
    put(top / "a/1")
    os.symlink("..", top / "b/loop")
    os.symlink("nowhere", top / "broken")
    os.symlink("itself", top / "itself")
    os.mkfifo(top / "fifo")
    with open(os.fsencode(top) + b"/caf\xe9", "wb"):
        pass
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(top / "socket"))
    server.close()
    found = Folder("p10", str(top)).files()
    expected = [b"a b.dcm", b"a/1", b"b/2", b"broken", b"caf\xe9", b"fifo", b"itself", b"socket"]
    assert [os.fsencode(f) for f in found] == expected
    assert not has_dicom_mark(str(top / "fifo"))


def test_a_directory_that_cannot_be_listed_is_one_line(tmp_path, monkeypatch):
    put(tmp_path / "p10/a")

    def denied(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match=r"cannot list .*: Permission denied; make it readable"):
        find_folders(str(tmp_path), [])


def test_a_linked_folder_is_followed(tmp_path):
    put(tmp_path / "elsewhere/x/1")
    (tmp_path / "dicom").mkdir()
    os.symlink("../elsewhere", tmp_path / "dicom/p10")
    assert find_folders(str(tmp_path / "dicom"), [])["p10"].files() == ["x/1"]
