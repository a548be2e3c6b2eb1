"""Hashes of a header's identifiers: under the user's key, at any time, and never what they are of."""

import hashlib
import hmac
import json
import os

import pytest

from echo_embeddings.collection.units import Folder
from echo_embeddings.convert import folder as conversion
from echo_embeddings.core import configuration
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.keys import Key, key_of_ids
from echo_embeddings.core.settings import Tables
from echo_embeddings.tables.join import files_table, join_tables
from testing.conversion import convert_folder, paths_in
from testing.dicoms import FRAMES, NATIVE, cine, drawn, save

KEY, OTHER = Key(bytes(range(32))), Key(b"another key of more than 32 bytes")
PATIENT, STUDY = "SECRET^0815", "1.2.840.99.4711"
SIZE = 64


@pytest.fixture
def folder(tmp_path):
    """Two clips of a patient, one that does not say whose it is, a still, and a file that is no DICOM."""
    top = tmp_path / "dicom/p10"
    top.mkdir(parents=True)
    said = {"PatientID": PATIENT, "PatientName": "SECRET^NAME", "StudyInstanceUID": STUDY}
    for name, elements in {"one": said, "two": said, "unsaid": {"PatientID": " "}}.items():
        save(top / f"{name}.dcm", cine(drawn(FRAMES, 24, 32, 3), "RGB", **elements), NATIVE[1])
    still = cine(drawn(1, 24, 32, 3), "RGB", **said)
    save(top / "still.dcm", still, NATIVE[1])
    (top / "notes.txt").write_text("no DICOM")
    return Folder("p10", str(top))


@pytest.fixture
def paths(tmp_path):
    return paths_in(tmp_path / "results")


@pytest.fixture
def decoded(monkeypatch):
    """The files that are given to workers to be converted, as they are."""
    given = []
    every = conversion._convert_all

    def convert_all(folder, tree, paths, *others):
        given.extend(paths)
        return every(folder, tree, paths, *others)

    monkeypatch.setattr(conversion, "_convert_all", convert_all)
    return given


def cells(rows):
    return {path: (row.patient_id_hash, row.study_instance_uid_hash) for path, row in rows.items()}


def hashed(key):
    """The cells of a file that says whose it is, as the docs say they are reckoned."""
    return tuple(
        hmac.new(key.secret, f"{keyword}\0{value}".encode(), hashlib.sha256).hexdigest()[:32]
        for keyword, value in (("PatientID", PATIENT), ("StudyInstanceUID", STUDY))
    )


def expected(key):
    said, unsaid = hashed(key), (None, None)
    return {"one.dcm": said, "two.dcm": said, "still.dcm": said, "unsaid.dcm": unsaid, "notes.txt": unsaid}


def written(top):
    """All that lies below a directory, and what it is called."""
    return b"".join(os.fsencode(path) + path.read_bytes() for path in top.rglob("*") if path.is_file())


def test_the_manifest_has_hashes_and_nothing_has_what_they_are_of(folder, paths, tmp_path, capfd):
    assert cells(convert_folder(folder, paths, key=KEY)) == expected(KEY)
    content = written(tmp_path / "results") + "".join(capfd.readouterr()).encode()
    assert hashed(KEY)[0].encode() in content
    plain = hashlib.sha256(PATIENT.encode()).hexdigest()
    for secret in (b"SECRET", STUDY.encode(), KEY.secret, KEY.secret.hex().encode(), plain[:32].encode()):
        assert secret not in content
    assert repr(KEY) == "Key()"
    joined, _ = join_tables(files_table({"p10": paths.table}), Tables())
    assert joined.set_index("path").loc["one.dcm", "subject_id"] == hashed(KEY)[0]


def test_switched_on_later_changed_and_taken_back_it_reads_headers_alone(folder, paths, tmp_path, decoded):
    first = convert_folder(folder, paths)
    assert set(cells(first).values()) == {(None, None)}
    assert sorted(decoded) == sorted(first)
    decoded.clear()
    mp4 = {path: path.stat().st_mtime_ns for path in paths.tree.rglob("*.mp4")}
    for key in (KEY, KEY, OTHER):
        rows = convert_folder(folder, paths, key=key)
        assert cells(rows) == expected(key)
        assert [row.mp4_blake2b for row in rows.values()] == [row.mp4_blake2b for row in first.values()]
    assert hashed(KEY)[0].encode() not in written(tmp_path / "results")
    assert convert_folder(folder, paths) == first
    assert hashed(OTHER)[0].encode() not in written(tmp_path / "results")
    assert decoded == []
    assert {path: path.stat().st_mtime_ns for path in paths.tree.rglob("*.mp4")} == mp4


def test_switched_on_after_mp4_files_were_copied(folder, paths, decoded):
    convert_folder(folder, paths)
    decoded.clear()
    for path in paths.tree.rglob("*.mp4"):
        os.utime(path, ns=(1, 1))
    assert cells(convert_folder(folder, paths, key=KEY)) == expected(KEY)
    assert decoded == []


def test_headers_are_not_read_again_for_nothing(folder, paths, monkeypatch):
    convert_folder(folder, paths, key=KEY)
    given = []
    monkeypatch.setattr(conversion.ids, "renewed", lambda _, rows, *others: given.extend(rows) or iter(()))
    convert_folder(folder, paths, key=KEY)
    assert given == []
    convert_folder(folder, paths, key=OTHER)
    assert sorted(given) == sorted(expected(KEY))


def test_a_file_that_is_away_has_its_hashes_when_it_is_back(folder, paths, tmp_path):
    """As git-annex drops what was converted: its MP4 stays, and what its header says is not known now."""
    file, away = tmp_path / "dicom/p10/one.dcm", tmp_path / "away"
    file.rename(away)
    file.symlink_to(away)
    convert_folder(folder, paths)
    away.rename(tmp_path / "elsewhere")
    rows = convert_folder(folder, paths, key=KEY)
    assert rows["one.dcm"].status == "converted"
    assert cells(rows) == expected(KEY) | {"one.dcm": (None, None)}
    (tmp_path / "elsewhere").rename(away)
    assert cells(convert_folder(folder, paths, key=KEY)) == expected(KEY)


def test_the_journal_tells_the_key_by_a_name_of_it(folder, paths):
    convert_folder(folder, paths, key=KEY)
    records = [json.loads(line) for line in (paths.state / "rows.jsonl").read_text().splitlines()]
    assert {record["key"] for record in records} == {KEY.name}
    assert KEY.name != OTHER.name
    assert len(KEY.name) == 16


# --- the configuration ------------------------------------------------------------------------------


def wrong(**changes):
    """What the configuration says of itself, one line."""
    config = {"convert": {"keep_ids": "hashed"}, "dicom_dir": "."} | changes
    with pytest.raises(UserError) as error:
        configuration.check(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_key_that_is_missing_or_none_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make = r"make one: (umask 077; head -c 32 /dev/urandom > ids.key), and name it in key_file"
    assert wrong() == f"config: key_file: convert.keep_ids needs a key; {make}"
    assert wrong(key_file="ids.key").startswith("config: key_file: cannot read 'ids.key' in ")
    (tmp_path / "ids.key").write_bytes(b"short")
    assert wrong(key_file="ids.key") == f"config: key_file: 'ids.key' holds 5 bytes, a key has 32 or more; {make}"
    (tmp_path / "results").mkdir()
    (tmp_path / "results/ids.key").write_bytes(KEY.secret)
    (tmp_path / "ids.key").unlink()
    (tmp_path / "ids.key").symlink_to("results/ids.key")
    for path in ("results/ids.key", "ids.key"):
        assert wrong(key_file=path).startswith(f"config: key_file: {path!r} lies in results, which others may get")
    assert wrong(mp4_dir=".").startswith("config: convert.keep_ids: mp4_dir holds videos")
    assert "config: convert.keep_ids: 'clear' does not match" in wrong(convert={"keep_ids": "clear"})


def test_the_key_is_that_of_the_file_and_is_not_read_without_need(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids.key").write_bytes(KEY.secret)
    config = {"convert": {"keep_ids": "hashed"}, "dicom_dir": ".", "key_file": "ids.key"}
    configuration.check(config)
    assert key_of_ids(config) == KEY
    (tmp_path / "ids.key").unlink()
    config = {"dicom_dir": ".", "key_file": "ids.key"}
    configuration.check(config)
    assert key_of_ids(config) is None
