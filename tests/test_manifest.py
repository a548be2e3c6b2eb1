import dataclasses

import pytest

from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.manifest import Row
from echo_embeddings.tables.join import read_manifest

ROWS = [
    Row(
        "s2/é.dcm",
        "s2/é.mp4",
        "converted",
        "",
        30,
        480,
        640,
        29.97,
        "YBR_FULL_422",
        "1.2.840.10008.1.2.4.50",
        9,
        8,
        7,
        mp4_blake2b="0123456789" * 3 + "12",
        patient_id_hash="ab" * 16,
    ),
    Row("s1/a%09b.dcm", "", "failed", "bad\tvalue\nhere 50%", bytes=5, mtime_ns=6),
    Row("s1/Z.dcm", "", "skipped", "single frame", rows=1, columns=2),
]


def test_columns_are_those_that_others_rely_on():
    assert manifest.COLUMNS == [
        "path", "mp4", "status", "reason", "frames", "rows", "columns", "fps", "photometric", "transfer_syntax",
        "bytes", "mtime_ns", "mp4_bytes", "manufacturer", "manufacturer_model_name", "ultrasound_color_data_present",
        "region_data_types", "tissue_box", "heart_rate", "kind", "mp4_blake2b", "patient_id_hash",
        "study_instance_uid_hash", "mask", "mask_kept",
    ]  # fmt: skip


def test_round_trip_in_byte_order(tmp_path):
    path = tmp_path / "p10.manifest.tsv"
    manifest.write(path, ROWS)
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    assert all(line.count("\t") == len(manifest.COLUMNS) - 1 for line in lines)
    read = manifest.read(path)
    assert [row.path for row in read] == ["s1/Z.dcm", "s1/a%09b.dcm", "s2/é.dcm"]
    assert read[2] == ROWS[0]
    assert read[1].reason == "bad value here 50%"
    assert read[0].frames is None


def test_spaces_in_paths_are_kept(tmp_path):
    rows = [Row(" a  b .dcm", " a  b .mp4", "converted", "", 3), Row("a b.dcm", "a b.mp4", "converted", "", 3)]
    manifest.write(tmp_path / "m.tsv", rows)
    assert [(r.path, r.mp4) for r in manifest.read(tmp_path / "m.tsv")] == [(r.path, r.mp4) for r in rows]


def test_digest_changes_with_the_table_only(tmp_path):
    table, digest = tmp_path / "t.tsv", tmp_path / "t.sha256"

    def make(rows):
        manifest.write(table, rows)
        manifest.write_digest(table, digest)
        return digest.read_text()

    first = make(ROWS)
    assert make(list(reversed(ROWS))) == first
    assert make(ROWS[:2]) != first


@pytest.mark.parametrize(
    "content", ["", "path\tmp4\n", "nonsense", "\t".join(manifest.COLUMNS) + "\na\tb\tc\td\tten\n"]
)
def test_what_is_no_manifest_is_refused(tmp_path, content):
    path = tmp_path / "m.tsv"
    path.write_text(content)
    with pytest.raises(UserError, match=r"m\.tsv"):
        manifest.read(path)


def test_tables_of_earlier_and_of_later_versions_are_read(tmp_path):
    path = tmp_path / "m.tsv"
    manifest.write(path, ROWS)
    rows, lines = manifest.read(path), [line.split("\t") for line in path.read_text().splitlines()]
    for width in (manifest.COLUMNS_0_1_0, 21, None):
        path.write_text("".join("\t".join([*line, "later"][:width]) + "\n" for line in lines))
        absent = dict.fromkeys(manifest.COLUMNS[width or len(manifest.COLUMNS) :])
        expected = [dataclasses.replace(row, **absent) for row in rows]
        assert manifest.read(path) == expected
        table = read_manifest(path)
        assert table.columns.tolist() == manifest.COLUMNS
        for name in ("mp4_blake2b", "patient_id_hash"):
            values = table[name].astype(object).where(table[name].notna(), None)
            assert values.tolist() == [getattr(row, name) for row in expected]
    path.write_text("".join("\t".join(line[: manifest.COLUMNS_0_1_0 - 1]) + "\n" for line in lines))
    for read in (manifest.read, read_manifest):
        with pytest.raises(UserError, match="not a whole manifest"):
            read(path)


def test_a_cut_table_is_refused(tmp_path):
    path = tmp_path / "m.tsv"
    manifest.write(path, ROWS)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match="not a whole manifest"):
        manifest.read(path)
