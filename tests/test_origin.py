"""How vectors were made, told from the file beside them: in runs, merged files, exports, comparisons and the index."""

import dataclasses
import json
import shutil

import pytest
import torch
from pyarrow import parquet

from echo_embeddings.core import fingerprint, origin
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.recipe import RECIPES
from echo_embeddings.core.vectors import merge_vectors, write_vectors
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import ARCHITECTURES
from echo_embeddings.qc import agreement, index
from echo_embeddings.qc.page import make_comparison
from echo_embeddings.tables import export
from testing import REPOSITORY
from testing.embedding import MODEL, run
from testing.qc import FACTS


def made(paths, top, name, **changes):
    """The vectors of the six clips by a model so changed, in a directory of their own with the file beside them."""
    run(paths, dataclasses.replace(MODEL, **changes))
    (top / name).mkdir()
    for path in (paths.vectors, paths.run):
        shutil.copy(path, top / name / path.name)
    return top / name / paths.vectors.name


@pytest.fixture
def paths(six_clips, tmp_path):
    """Six clips, and weights under two checkpoint keys."""
    states = {key: checkpoint.draw(ARCHITECTURES["vit_tiny"], seed).state_dict() for seed, key in
              enumerate(("encoder", "target_encoder"))}  # fmt: skip
    checkpoint.save(tmp_path / "two.pt", states, "drawn for a test")
    return dataclasses.replace(six_clips, checkpoint=tmp_path / "two.pt")


def origin_check(first, second):
    found = agreement.compare(first, second)
    return next((check.sentence for check in found.checks if check.name == "Origin"), None)


def test_the_short_fingerprint_tells_files_apart_and_is_that_of_the_state(paths, tmp_path):
    first = made(paths, tmp_path, "first")
    second = made(paths, tmp_path, "second", entry="target_encoder")
    short = [json.loads(path.with_suffix(".json").read_text())["short_fingerprint"] for path in (first, second)]
    assert len(set(short)) == 2
    assert {path.name.split("-")[0] for path in paths.state.glob("**/*.pt")} == set(short)
    assert [origin.beside(path)["short_fingerprint"] for path in (first, second)] == short
    record = json.loads(first.with_suffix(".json").read_text())
    del record["short_fingerprint"]  # as records were before
    assert origin.of_record(record)["short_fingerprint"] == short[0]
    assert fingerprint.fingerprint(MODEL) == record["fingerprint"]


def test_what_a_recipe_of_version_0_1_0_does_not_name_is_as_it_was(tmp_path):
    old = REPOSITORY / "tests/data/v0_1_0"
    (path,) = old.rglob("tiny_embeddings_p10.json")
    record = json.loads(path.read_text())
    now = record | {"recipe": json.loads(json.dumps(dataclasses.asdict(RECIPES["guide"])))}
    first, second = map(origin.of_record, (record, now))
    assert first["recipe"].keys() == second["recipe"].keys()
    assert origin.differences(first, second) == {}
    assert origin.of_records([record, now])["recipe"] == second["recipe"]
    strange = origin.differences({"checkpoint_sha256": 5}, {"checkpoint_sha256": 6})  # of others' making
    assert strange == {"checkpoint": ("5..", "6..")}


def test_compare_says_what_two_files_say_differently(paths, tmp_path):
    first = made(paths, tmp_path, "first")
    assert origin_check(first, first) is None
    second = made(paths, tmp_path, "second", entry="target_encoder", recipe=RECIPES["echojepa"])
    assert origin_check(first, second) == (
        "The files were made differently: entry (checkpoint key) encoder and target_encoder; recipe guide and echojepa."
    )
    renamed = dataclasses.replace(RECIPES["guide"], name="ours")  # a name decides nothing
    third = made(paths, tmp_path, "third", recipe=renamed)
    assert origin_check(first, third) is None
    make_comparison(first, second, tmp_path / "compare.html")
    page = (tmp_path / "compare.html").read_text()
    assert "How they were made" in page
    assert "entry (checkpoint key) encoder and target_encoder" in page
    assert json.loads((tmp_path / "compare.json").read_text())["origins"][1]["entry"] == "target_encoder"


def test_compare_names_what_is_likely_of_a_file_that_says_nothing(paths, tmp_path):
    """Vectors of another checkpoint key by another's script: same names, keys and shapes."""
    first = made(paths, tmp_path, "first")
    second = made(paths, tmp_path, "second", entry="target_encoder")
    second.with_suffix(".json").unlink()
    words = origin_check(first, second)
    assert words.startswith(f"No file beside {second} says how it was made. The other file: entry (checkpoint key) ")
    for cause in ("another entry", "another size", "another recipe", "another family", "docs/guide.md"):
        assert cause in words
    off = agreement.compare(first, second).apart
    a, b = (torch.stack(list(torch.load(path).values())) for path in (first, second))
    lengths = a.norm(dim=1) + b.norm(dim=1)
    assert off == pytest.approx((2 * (a - b).norm(dim=1) / lengths).quantile(0.5).item(), rel=1e-5)
    assert f"{off:.0%} is neither rounding" in words
    # As far off as a codec is: not what the causes above bring about.
    near = tmp_path / "near.pt"
    write_vectors(near, list(torch.load(first)), a + 0.02 * a.norm(dim=1, keepdim=True) * torch.randn(a.shape) / 14)
    assert "MP4 files of another codec may differ so." in origin_check(first, near)
    near.with_suffix(".json").write_text("not JSON")  # anything may lie there
    assert "MP4 files of another codec" in origin_check(first, near)


def test_records_that_agree_say_that_something_else_differs(paths, tmp_path):
    first = made(paths, tmp_path, "first")
    (tmp_path / "second").mkdir()
    second = tmp_path / "second/a.pt"
    vectors = torch.load(first)
    write_vectors(second, list(vectors), 0.2 + torch.stack(list(vectors.values())))
    shutil.copy(first.with_suffix(".json"), second.with_suffix(".json"))
    assert origin_check(first, second).endswith("differs: MP4 or DICOM files, versions or devices do.")


def test_a_merged_file_says_what_its_folders_agree_on(paths, tmp_path):
    first = made(paths, tmp_path, "first")
    second = made(paths, tmp_path, "second", entry="target_encoder")
    for parts, says in (((first, first), True), ((first, second), False)):
        merged = tmp_path / "tiny_embeddings_all.pt"
        folders = dict(zip(("p10", "p11"), parts, strict=True))
        merge_vectors(folders, merged, 192, prefix_folder=True)
        origin.write_merged(folders, merged)
        beside = origin.beside(merged)
        assert ("short_fingerprint" in beside) == ("entry" in beside) == says
        assert beside["resolution"] == 64
    first.with_suffix(".json").unlink()
    origin.write_merged({"p10": second, "p11": first}, merged)
    assert origin.beside(merged) == {}
    second.with_suffix(".json").write_text("{")
    with pytest.raises(UserError, match="no run record"):
        origin.write_merged({"p10": second}, merged)


def test_exports_have_the_short_fingerprint(paths, tmp_path):
    made(paths, tmp_path, "first")
    parts = {"p10": export.Part(paths.vectors, paths.table, paths.run)}
    _, matrix = parts["p10"].read(192)
    table = export.to_arrow(export.files_table({"p10": paths.table})[["path"]])
    export.write_parquet(tmp_path / "x.parquet", table, matrix, made_by=export.made_by(parts))
    short = json.loads(paths.run.read_text())["short_fingerprint"]
    for metadata in (
        parquet.read_schema(tmp_path / "x.parquet").metadata,
        parquet.read_metadata(tmp_path / "x.parquet").metadata,
    ):
        assert metadata[b"short_fingerprint"].decode() == short


def test_the_index_says_that_models_were_read_from_different_entries(tmp_path):
    def page(name, entries):
        (tmp_path / f"{name}.json").write_text(
            json.dumps(
                {
                    "status": "good",
                    "provenance": {"shared": {"entry": entries}},
                    "summary": {
                        **dict.fromkeys(("vectors", "dim", "bytes", "failed", "not_embedded", "nan", "duplicates"), 1),
                        **dict.fromkeys(("norm_mean", "norm_std", "cosine_mean", "effective_rank", "pca_top", "auc")),
                        "notes": [],
                    },
                }
            )
        )
        write_vectors(tmp_path / f"{name}.pt", ["a", "b"], torch.eye(2))
        return tmp_path / f"{name}.html", tmp_path / f"{name}.pt"

    made = {name: page(name, {entry: ["p10"]}) for name, entry in
            (("vitl", "encoder"), ("vith", "encoder"), ("echo", "target_encoder"))}  # fmt: skip

    def said(*names):
        pages, vectors = ({name: made[name][i] for name in names} for i in (0, 1))
        index.make_index(pages, vectors, tmp_path / "index.html", dict.fromkeys(pages, FACTS))
        return " ".join((tmp_path / "index.html").read_text().split())

    assert "vitl, vith from <strong>encoder</strong>; echo from <strong>target_encoder</strong>." in said(*made)
    assert json.loads((tmp_path / "index.json").read_text())["entries"]["target_encoder"] == ["echo"]
    assert "different entries" not in said("vitl", "vith")
