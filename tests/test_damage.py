"""State that was damaged: it is set aside, one line says so, and what it held is done again; the rest is used."""

import io
import json
import os
import shutil

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from safetensors.torch import save

from echo_embeddings.collection.units import Folder
from echo_embeddings.core import progress, state
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.settings import Table
from echo_embeddings.embed.shards import Shards
from echo_embeddings.tools import rekey, status
from testing.conversion import convert_folder, paths_in
from testing.corpus import CINE
from testing.embedding import run


def torch_file(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


NOT_OURS = {"empty": b"", "garbage": b"\xff\x00garbage" * 50, "text": b"{", "a list": b"[1, 2]", "other": b'{"a": 1}'}
SHARDS = NOT_OURS | {
    "dict": torch_file({"a": 1}),
    "list": torch_file([torch.zeros(3)]),
    "lengths": torch_file({"keys": ["a"], "identities": ["b", "c"], "vectors": torch.zeros(1, 192)}),
    "types": torch_file({"keys": [1], "identities": ["b"], "vectors": torch.zeros(1, 192)}),
    "nan": torch_file({"keys": ["a"], "identities": ["b"], "vectors": torch.full((1, 192), torch.nan)}),
    "half": torch_file({"keys": ["a"], "identities": ["b"], "vectors": torch.zeros(1, 192)})[:800],
}
FEATURES = NOT_OURS | {
    "no identities": save({"a": torch.zeros(2)}),
    "other keys": save({"a": torch.zeros(2)}, {"identities": '{"b": "c"}'}),
    "types": save({"a": torch.zeros(2)}, {"identities": '["a"]'}),
}


def told(capsys, path) -> None:
    """It was set aside, and one line says so."""
    lines = [line for line in capsys.readouterr().out.splitlines() if "damaged" in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"{path}: ")
    assert lines[0].endswith(f"set aside as {path.name}.damaged, and what it held is done again")
    assert lines[0].isprintable()


def same(found, wanted):
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("content", SHARDS.values(), ids=SHARDS)
def test_a_damaged_shard(six_clips, computed, capsys, content):
    before = run(six_clips)
    (shard,) = six_clips.state.glob("*.pt")
    sound = shard.with_name(f"{shard.name.split('-')[0]}-0.pt")  # of two clips, as a killed job may leave it
    whole = torch.load(shard)
    torch.save({name: values[:2] for name, values in whole.items()}, sound)
    shard.write_bytes(content)
    computed.clear()
    capsys.readouterr()
    assert same(run(six_clips), before)
    assert sum(computed) == 4
    told(capsys, shard)
    assert shard.with_name(f"{shard.name}.damaged").read_bytes() == content
    computed.clear()
    assert same(run(six_clips), before)
    assert computed == []
    assert "damaged" not in capsys.readouterr().out


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True, database=None)
@hypothesis.given(data=st.data())
def test_a_shard_with_a_few_bytes_changed_is_read_or_set_aside(tmp_path_factory, data):
    top = tmp_path_factory.mktemp("shards")
    vectors = {f"k{i}": torch.full((4,), float(i)) for i in range(3)}
    Shards(top, Folder("p10", "."), "f").add(vectors, dict.fromkeys(vectors, "identity"))
    (path,) = top.rglob("*.pt")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    found = Shards(top, Folder("p10", "."), "f").vectors(dict.fromkeys(vectors, "identity"))
    assert all(vector.shape == (4,) and vector.isfinite().all() for vector in found.values())
    assert path.exists() or path.with_name(f"{path.name}.damaged").exists()
    shutil.rmtree(top)


@pytest.mark.parametrize("content", FEATURES.values(), ids=FEATURES)
def test_a_damaged_file_of_features(six_clips, computed, capsys, content):
    run(six_clips, pooling="time", batch_size=2, save_every=2)
    directory = six_clips.layout.feature_files("time", "tiny") / "p10"
    index = six_clips.layout.feature_index("time", "tiny", "p10")
    file = sorted(directory.glob("*.safetensors"))[0]
    held = index.read_text().count(file.name)
    assert held
    file.write_bytes(content)
    computed.clear()
    capsys.readouterr()
    run(six_clips, pooling="time")
    assert sum(computed) == held
    told(capsys, file)
    assert len(index.read_text().splitlines()) == 7


@pytest.mark.parametrize("content", NOT_OURS.values(), ids=NOT_OURS)
def test_a_damaged_digest_of_the_checkpoint(six_clips, computed, capsys, content):
    before = run(six_clips)
    (kept,) = six_clips.digests.glob("*.json")
    whole = kept.read_text()
    kept.write_bytes(content)
    computed.clear()
    capsys.readouterr()
    assert same(run(six_clips), before)
    assert computed == []
    told(capsys, kept)
    assert kept.read_text() == whole


@pytest.mark.parametrize("name", ["empty", "garbage", "text", "a list"])
def test_a_damaged_run_record(six_clips, computed, capsys, name):
    """Another object tells of other vectors, and is written over."""
    run(six_clips)
    whole = json.loads(six_clips.run.read_text())
    six_clips.run.write_bytes(NOT_OURS[name])
    with pytest.raises(
        UserError, match=r"tiny_embeddings_p10\.json: no run record: .* delete .*_p10\.pt and run again"
    ):
        list(status.collect(six_clips.layout, ["p10"], {"tiny": 64}))
    computed.clear()
    capsys.readouterr()
    run(six_clips)
    assert computed == []
    told(capsys, six_clips.run)
    assert json.loads(six_clips.run.read_text()).keys() == whole.keys() - {"device", "batch_size", "compiled"} - {
        "clips_per_second", "seconds_waiting_for_clips",
    }  # fmt: skip


RECORD = {"state": "running", "done": 1, "total": 2, "failed": 0, "rate": 1.0, "host": "a", "slurm_job": None} | {
    "started": 0.0, "updated": 0.0,
}  # fmt: skip
PROGRESS = NOT_OURS | {key: json.dumps(RECORD | {key: []}).encode() for key in RECORD}


@pytest.mark.parametrize("content", PROGRESS.values(), ids=PROGRESS)
def test_a_damaged_record_of_progress_is_none(tmp_path, content):
    (tmp_path / progress.RECORD).write_text(json.dumps(RECORD))
    assert progress.read(tmp_path).total == 2
    (tmp_path / progress.RECORD).write_bytes(content)
    assert progress.read(tmp_path) is None


# --- journals ---------------------------------------------------------------------------------------


def in_directory(top):
    return Folder("p10", str(top / "dicom")), paths_in(top / "results")


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    top = tmp_path_factory.mktemp("converted")
    (top / "dicom").mkdir()
    for i in range(3):
        shutil.copy(CINE["small"], top / f"dicom/{i}.dcm")
    convert_folder(*in_directory(top))
    return top


@pytest.fixture
def converted(once, tmp_path):
    """A folder of three clips that were converted; its journal and the lines of that."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    folder, paths = in_directory(tmp_path)
    journal = paths.state / "rows.jsonl"
    return folder, paths, journal, journal.read_bytes().splitlines(keepends=True)


def changed(line: bytes, **cells: object) -> bytes:
    record = json.loads(line)
    return json.dumps(record | {"row": record["row"] | cells}).encode() + b"\n"


LINES = {
    "garbage": lambda line: b"\xff\x00" * 50 + b"\n",
    "half": lambda line: line[:100] + b"\n",
    "a list": lambda line: b"[]\n",
    "a number": lambda line: b"5\n",
    "no row": lambda line: b'{"settings": "a"}\n',
    "settings": lambda line: line.replace(b'{"settings": "', b'{"settings": 5, "was": "'),
    "a column of a later version": lambda line: changed(line, later=1),
    "path": lambda line: changed(line, path=["a"]),
    "mp4": lambda line: changed(line, mp4=None),
    "frames": lambda line: changed(line, frames="many"),
    "bytes": lambda line: changed(line, bytes=1.5),
    "deep": lambda line: b"[" * 10**5 + b"\n",
}


def test_damaged_lines_of_a_journal(converted, capsys):
    """None of them is taken for a row: all are counted."""
    folder, paths, journal, lines = converted
    table = paths.table.read_text()
    damaged = [damage(lines[1]) for damage in LINES.values()]
    content = lines[0] + b"".join(damaged) + lines[2]
    journal.write_bytes(content)
    capsys.readouterr()
    convert_folder(folder, paths)
    said = capsys.readouterr().out
    assert "p10: 3 files, 1 to do" in said
    count = f"{len(damaged)} of {len(damaged) + 2} lines are no rows"
    assert f"{journal}: damaged ({count}); set aside as rows.jsonl.damaged, and" in said
    assert journal.with_name("rows.jsonl.damaged").read_bytes() == content
    assert paths.table.read_text() == table
    convert_folder(folder, paths)
    said = capsys.readouterr().out
    assert "p10: 3 files, 0 to do" in said
    assert "damaged" not in said


@pytest.mark.parametrize(
    "content", [b"\xff\x00garbage" * 50, b"\0" * 500, torch_file({})], ids=["bytes", "nul", "torch"]
)
def test_a_journal_of_garbage(converted, capsys, content):
    folder, paths, journal, _ = converted
    journal.write_bytes(content)
    capsys.readouterr()
    convert_folder(folder, paths)
    said = capsys.readouterr().out
    assert "p10: 3 files, 3 to do" in said
    assert f"{journal}: damaged (" in said


def test_a_last_line_that_a_kill_cut_short_is_no_damage(converted, capsys):
    folder, paths, journal, lines = converted
    journal.write_bytes(b"".join(lines)[:-20])
    capsys.readouterr()
    convert_folder(folder, paths)
    said = capsys.readouterr().out
    assert "p10: 3 files, 1 to do" in said
    assert "damaged" not in said


# --- what is only read ------------------------------------------------------------------------------


def test_damaged_state_is_left_where_it_is_when_results_are_carried_over(six_clips, tmp_path, capsys):
    """`rekey` changes nothing of the old results."""
    run(six_clips)
    old = tmp_path / "old"
    old.mkdir()
    six_clips.layout.root.rename(old / "results")
    (shard,) = old.rglob("state/embed/*/*/*.pt")
    shard.write_bytes(b"")
    journal = old / "results/state/convert/64/p10/rows.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b"\xff\n")
    dicom = tmp_path / "dicom/p10/s0"
    dicom.mkdir(parents=True)
    (dicom / "clip.dcm").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "record.csv").write_text("dicom_filepath\np10/s0/clip.dcm\n")
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    record_list = Table(str(tmp_path / "record.csv"), "path", "dicom_filepath", name="record_list")
    rekey.rekey(old, tmp_path / "new", record_list, str(tmp_path / "dicom"), None)
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    lines = [line for line in capsys.readouterr().out.splitlines() if "damaged" in line]
    assert len(lines) == 2
    assert all(line.endswith("left where it is, and what it held is done again") for line in lines)


def test_what_cannot_be_read_is_no_damage(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match=f"Is a directory: '{tmp_path}/a'"):
        state.load(tmp_path / "a", state.read_json)
    assert os.listdir(tmp_path) == ["a"]
    assert state.load(tmp_path / "b", state.read_json) is None
