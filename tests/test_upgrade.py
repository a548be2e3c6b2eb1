"""What earlier versions made is recognised, and a corrected bug makes again what it touched and nothing else.

`tests/data/v0_1_0` is a working directory as version 0.1.0 left it (its README.md says how it was made).
"""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from echo_embeddings.collection.folders import find_folder
from echo_embeddings.collection.units import Folder
from echo_embeddings.convert.folder import convert_folder
from echo_embeddings.core import configuration, corrections, fingerprint, manifest, settings
from echo_embeddings.core.corrections import Correction
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.settings import Table
from echo_embeddings.embed.folder import ComputeOptions, embed_folder
from echo_embeddings.tools import demo, rekey
from testing import REPOSITORY
from testing.commands import run_snakemake

LEFT = REPOSITORY / "tests/data/v0_1_0"
WEIGHTS_SHA256 = "87f3f0b22cd9d2e6f9791fa8ba1daadf78d7456fd323e20f65de024a639cf269"
MODELS = ("tiny", "tiny-rate")  # the guide's recipe; one of the configuration's, which reads rate and shape of a row
FIVE, FOUR = "p10000001/s90000001/90000001_0001", "p10000001/s90000002/90000002_0001"  # p10's clips, by frames


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    demo.write_weights(path, "vit_tiny", "encoder", 0)
    return path


@pytest.fixture
def work(tmp_path, weights, monkeypatch):
    """The directory that version 0.1.0 left; the test runs in it."""
    work = tmp_path / "work"
    shutil.copytree(LEFT, work)
    (work / ".snakemake").mkdir()
    (work / "snakemake_metadata").rename(work / ".snakemake/metadata")
    (work / "weights").mkdir()
    shutil.copy(weights, work / "weights/tiny.pt")
    times = json.loads((LEFT / "times.json").read_text())
    for name in sorted(times, reverse=True):  # directories after what is in them
        os.utime(work / name, ns=(times[name], times[name]))
    # What was remembered of the checkpoint, under the place where it is now: another torch may write another file.
    path = work / "weights/tiny.pt"
    kept = work / f"results/state/checkpoints/{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.json"
    kept.parent.mkdir()
    identity = [str(path), path.stat().st_size, path.stat().st_mtime_ns]
    kept.write_text(json.dumps({"identity": identity, "sha256": WEIGHTS_SHA256}))
    monkeypatch.chdir(work)
    return work


def configured():
    config = configuration.read(".", "config.yaml")
    return config, configuration.check(config)


def converted(folder="p10"):
    """Run the job `convert`; returns the MP4 files that it made."""
    config, _ = configured()
    tree = Layout().mp4(32, folder)
    before = times(tree)
    convert_folder(
        find_folder(config["dicom_dir"], folder), Layout(), settings.convert_settings(config, 32),
        limit=0, workers=1, timeout=60, max_failed_fraction=1,
    )  # fmt: skip
    return {name for name, time in times(tree).items() if before.get(name) != time}


def embedded(name="tiny", pool="mean", folder="p10", **changes):
    """Run the job `embed`; returns how many vectors it computed."""
    config, registry = configured()
    model = dataclasses.replace(settings.model(config, registry, name), **changes)
    layout = Layout()
    options = ComputeOptions("cpu", batch_size=4, num_workers=0, threads=2, save_every=3)
    tree = layout.mp4(32, folder)
    embed_folder(
        Folder(folder, str(tree)), model, Path("weights/tiny.pt"), tree, layout, options,
        max_failed_fraction=0, pooling=pool,
    )  # fmt: skip
    counts = json.loads(layout.run_record(name, folder).read_text())["counts"]
    return counts["embedded"] - counts["reused"]


def times(top):
    return {path.relative_to(top).as_posix(): path.stat().st_mtime_ns for path in Path(top).rglob("*.mp4")}


def features(pool):
    """Of all models and folders, as their indices tell."""
    found = {}
    for index in Path("results/features", pool).glob("*/*.index.tsv"):
        for line in index.read_text().splitlines()[1:]:
            key, file = line.split("\t")
            with safe_open(index.parent / file, "pt") as shard:
                found[f"{index.parent.name} {key}"] = shard.get_tensor(key)
    return found


def same(found, wanted):
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_version_0_1_0s_results_are_recognised(work, capsys):
    before, tokens, time = times("results/mp4"), features("tokens"), features("time")
    assert (len(before), len(tokens), len(time)) == (3, 6, 6)
    for folder, said in (
        ("p10", "p10: 3 files, 0 to do"),
        ("p11", "p11: 2 files, 1 to do"),
    ):  # a failure is tried again
        assert converted(folder) == set()
        assert said in capsys.readouterr().out
        table = f"results/mp4/32/{folder}.manifest.tsv"
        assert manifest.read(table) == manifest.read(LEFT / table)
        for model in MODELS:
            for pool in ("mean", "time", "tokens"):
                assert embedded(model, pool, folder) == 0
                assert ", 0 to do" in capsys.readouterr().out
            vectors = f"results/embeddings/{model}_embeddings_{folder}.pt"
            assert same(torch.load(vectors), torch.load(LEFT / vectors))
            record, old = (json.loads(Path(top, vectors).with_suffix(".json").read_text()) for top in (".", LEFT))
            assert {key: record[key] for key in ("device", "clips_per_second")} == {
                key: old[key] for key in ("device", "clips_per_second")
            }
    assert times("results/mp4") == before
    assert same(features("tokens"), tokens)
    assert same(features("time"), time)


def test_what_is_recognised_stands_under_the_new_fingerprint(work):
    """So the names that 0.1.0 put into its digests can be others from then on."""
    old = {path.name for path in LEFT.rglob("results/**/*-*.*") if path.suffix in (".pt", ".safetensors")}
    config, registry = configured()
    for folder in ("p10", "p11"):
        converted(folder)
        for model in MODELS:
            for pool in ("mean", "time", "tokens"):
                embedded(model, pool, folder)
    prefixes = {
        fingerprint.prefix(f"{settings.model(config, registry, model).fingerprint()} {WEIGHTS_SHA256}")
        for model in MODELS
    }
    new = {path.name for path in work.rglob("results/**/*-*.*") if path.suffix in (".pt", ".safetensors")}
    new = {name for name in new if "embeddings" not in name}
    assert {name.split("-")[0] for name in new} == prefixes
    assert not new & old
    records = [json.loads(line) for path in work.rglob("rows.jsonl") for line in path.read_text().splitlines()]
    assert {record["settings"] for record in records} == {settings.convert_settings(config, 32).fingerprint()}
    for path in (Path("config.yaml"), Path("models.yaml")):
        path.write_text(path.read_text().replace("true-time", "by-time").replace("tiny-rate", "small"))
    for top in ("state/embed", "features/time", "features/tokens"):
        Path("results", top, "tiny-rate").rename(Path("results", top, "small"))
    assert embedded("small", "tokens") == 0


def test_other_settings_are_not_taken_for_those_of_0_1_0(work):
    Path("config.yaml").write_text(Path("config.yaml").read_text().replace("convert: {", "convert: {quality: 4, "))
    assert converted() == {f"{FIVE}.mp4", f"{FOUR}.mp4"}
    assert embedded(precision="bf16") == 2


def test_a_rate_that_was_written_as_30_0_is_recognised(work):
    """Version 0.1.0 told 30.0 from 30."""
    journal = Path("results/state/convert/32/p10/rows.jsonl")
    Path("config.yaml").write_text(Path("config.yaml").read_text().replace("convert: {", "convert: {fps: 30.0, "))
    new = settings.convert_settings(configured()[0], 32)
    (digest,) = fingerprint.convert_0_1_0(new) - {new.fingerprint()}
    journal.write_text(journal.read_text().replace(new.fingerprint(), digest))
    assert digest in journal.read_text()
    assert converted() == set()
    assert digest not in journal.read_text()


@pytest.mark.parametrize("models", [MODELS[1:], pytest.param(MODELS, marks=pytest.mark.slow)], ids="-".join)
def test_the_workflow_goes_on_where_version_0_1_0_stopped(work, tmp_path, monkeypatch, models):
    """Jobs are pending once, and find their work done; a correction makes them pending again."""
    targets = [f"results/embeddings/{model}_embeddings_all.pt" for model in models]
    before, manifests = (
        times("results/mp4"),
        [manifest.read(f"results/mp4/32/{f}.manifest.tsv") for f in ("p10", "p11")],
    )

    def snakemake(*arguments, snakefile="workflow/Snakefile"):
        options = ["--configfile", str(work / "config.yaml"), "--cores", "2", *arguments, *targets]
        done = run_snakemake(work, *options, snakefile=snakefile)
        assert done.returncode == 0, done.stdout
        return done.stdout

    planned = snakemake("-n")
    assert planned.count("Params have changed since last execution: ") == 2  # of convert; embed follows
    assert "Missing output files" not in planned
    snakemake()
    logs = {
        path.relative_to("results/logs").as_posix(): path.read_text() for path in Path("results/logs").rglob("*.log")
    }
    assert "p10: 3 files, 0 to do" in logs["convert/32/p10.log"]
    assert "p11: 2 files, 1 to do" in logs["convert/32/p11.log"]  # a failure is tried again
    for model in models:
        assert "p10: 2 clips, 0 to do" in logs[f"embed/{model}/p10.log"]
        assert "p11: 1 clips, 0 to do" in logs[f"embed/{model}/p11.log"]
    assert times("results/mp4") == before
    assert [manifest.read(f"results/mp4/32/{f}.manifest.tsv") for f in ("p10", "p11")] == manifests
    for target in targets:
        assert same(torch.load(target), torch.load(LEFT / target))
    assert "Nothing to be done" in snakemake("-n")
    for name in ("workflow", "config"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    code = tmp_path / Path(corrections.__file__).relative_to(REPOSITORY)
    table = "EMBED: tuple[Correction, ...] = ("
    assert table in code.read_text()
    code.write_text(code.read_text().replace(table, table + 'Correction("0.2.1", "all", lambda *_: True),'))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "workflow/scripts"))
    planned = snakemake("-n", snakefile=tmp_path / "workflow/Snakefile")
    assert (planned.count("rule embed:"), planned.count("rule convert:")) == (2 * len(models), 0)


# --- corrections --------------------------------------------------------------------------------------

OF_FOUR = Correction("0.2.1", "four-frames", lambda row, _: row.frames == 4)


def correct(monkeypatch, stage, *found):
    monkeypatch.setattr(corrections, stage, found)


def test_no_two_corrections_are_taken_for_each_other():
    names = corrections.names(corrections.CONVERT + corrections.EMBED)
    assert len(set(names)) == len(names)
    assert not [name for name in names if "+" in name]


def test_a_corrected_conversion_makes_again_what_it_touched_and_once(work, monkeypatch):
    assert (converted(), embedded("tiny", "tokens"), embedded("tiny-rate", "tokens")) == (set(), 0, 0)
    before = features("tokens")
    correct(monkeypatch, "CONVERT", OF_FOUR)
    assert converted() == {f"{FOUR}.mp4"}
    assert (embedded("tiny", "tokens"), embedded("tiny-rate", "tokens")) == (1, 1)
    after = features("tokens")
    assert after.keys() == before.keys()
    kept = [key for key in before if key.endswith(f" {FIVE}.mp4")]
    assert len(kept) == len(MODELS)
    assert all(torch.equal(after[key], before[key]) for key in kept)
    assert (converted(), embedded("tiny", "tokens"), embedded("tiny-rate", "tokens")) == (set(), 0, 0)
    # One more, of the other clip: what the first one touched stays.
    correct(monkeypatch, "CONVERT", OF_FOUR, Correction("0.2.2", "five", lambda row, _: row.frames == 5))
    assert converted() == {f"{FIVE}.mp4"}
    assert (embedded("tiny", "tokens"), converted(), embedded("tiny", "tokens")) == (1, set(), 0)


@pytest.mark.parametrize(
    ("applies", "made"),
    [
        (lambda row, _: row.transfer_syntax == "1.2.840.10008.1.2.4.50", {f"{FIVE}.mp4", f"{FOUR}.mp4"}),
        (lambda row, _: row.photometric == "PALETTE COLOR", set()),
        (lambda row, _: row.rows == 240 and row.status == "skipped", set()),  # looked at again, and skipped again
        (lambda row, conversion: (row.fps or 0) > 20 and conversion.fps == "source", set()),
    ],
)
def test_a_correction_goes_by_the_row_and_the_settings(work, monkeypatch, capsys, applies, made):
    correct(monkeypatch, "CONVERT", Correction("0.2.1", "some", applies))
    assert converted() == made
    converted()
    assert "p10: 3 files, 0 to do" in capsys.readouterr().out


def test_what_was_made_with_a_correction_says_so(work, monkeypatch):
    """New rows too, so that a correction never touches what was made after it."""
    shutil.rmtree("results")
    correct(monkeypatch, "CONVERT", OF_FOUR)
    correct(monkeypatch, "EMBED", OF_FOUR)
    assert (converted(), embedded()) == ({f"{FIVE}.mp4", f"{FOUR}.mp4"}, 2)
    records = map(json.loads, Path("results/state/convert/32/p10/rows.jsonl").read_text().splitlines())
    of = {record["row"]["mp4"]: corrections.split(record["settings"])[1] for record in records}
    assert of == {f"{FIVE}.mp4": "", f"{FOUR}.mp4": "+0.2.1-four-frames", "": ""}
    assert (converted(), embedded()) == (set(), 0)


def test_a_corrected_embedding_makes_again_what_it_touched_and_once(work, monkeypatch):
    """And leaves MP4 files, and models whose recipe the bug was not of, as they are."""
    by_rate = Correction("0.2.1", "rate", lambda row, model: row.frames == 4 and model.recipe.sampling == "rate")
    correct(monkeypatch, "EMBED", by_rate)
    assert (converted(), embedded("tiny", "time"), embedded("tiny-rate", "time")) == (set(), 0, 1)
    assert (converted(), embedded("tiny", "time"), embedded("tiny-rate", "time")) == (set(), 0, 0)


def test_corrected_results_go_under_new_names_and_uncorrected_ones_stay_so(work, tmp_path, monkeypatch):
    """What `rekey` carries over keeps the corrections that it was made with, and those alone."""
    listed = [f"files/{path.relative_to('dicom')}" for path in Path("dicom").rglob("*.dcm")]
    (tmp_path / "record.csv").write_text("\n".join(["dicom_filepath", *listed, ""]))
    by_rate = Correction("0.2.1", "rate", lambda row, model: row.frames == 4 and model.recipe.sampling == "rate")
    correct(monkeypatch, "EMBED", by_rate)
    correct(monkeypatch, "CONVERT", OF_FOUR)
    assert (converted(), embedded("tiny-rate")) == ({f"{FOUR}.mp4"}, 1)

    def carried(name):
        rekey.rekey(work, tmp_path / name, Table(str(tmp_path / "record.csv"), "path", "dicom_filepath"), "dicom", None)
        for other in ("config.yaml", "models.yaml", "dicom", "weights"):
            (tmp_path / name / other).symlink_to(work / other)
        monkeypatch.chdir(tmp_path / name)

    carried("corrected")
    assert (converted(), embedded("tiny-rate")) == (set(), 0)
    monkeypatch.chdir(work)
    # One that comes later, and was not there when the vectors were made.
    correct(monkeypatch, "EMBED", by_rate, Correction("0.2.2", "five", lambda row, _: row.frames == 5))
    carried("stale")
    assert (converted(), embedded("tiny-rate")) == (set(), 1)
