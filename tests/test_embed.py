"""A folder's MP4 tree to vectors: one a clip or a reason, kept work, failures."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch

from echo_embeddings.collection.units import Folder
from echo_embeddings.convert import video
from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.recipe import RECIPES, Recipe
from echo_embeddings.core.settings import Table, Tables
from echo_embeddings.core.vectors import read_vectors
from echo_embeddings.embed import folder as embedding
from echo_embeddings.embed import inference, masks, preprocessing, sampling
from echo_embeddings.encoders import checkpoint
from testing.embedding import MODEL, killed, run


@pytest.fixture
def paths(six_clips):
    return six_clips


def record(paths):
    return json.loads(paths.run.read_text())


def test_one_vector_a_clip_sorted_and_how_it_was_made(paths):
    vectors = run(paths)
    assert list(vectors) == [f"s{i}/clip.mp4" for i in range(6)]
    assert all(v.shape == (192,) and v.dtype == torch.float32 and v.isfinite().all() for v in vectors.values())
    made = record(paths)
    assert made["counts"] == {
        **{"converted": 6, "left_out": 0, "embedded": 6, "reused": 0, "failed": 0, "short": 1},
    }
    assert made["checkpoint_sha256"] == checkpoint.sha256(paths.checkpoint, paths.digests)
    assert (made["model"], made["entry"], made["weights"]) == ("tiny", "encoder", "drawn for a test")
    assert paths.failed.read_text() == "key\treason\n"


def test_batches_workers_and_order_do_not_change_a_vector(paths):
    first = run(paths)
    for options in ({"batch_size": 1}, {"batch_size": 5, "num_workers": 2}):
        for path in paths.state.iterdir():
            path.unlink()
        again = run(paths, **options)
        for key, vector in first.items():
            assert (again[key] - vector).norm() / vector.norm() < 1e-5


def test_only_what_is_missing_is_computed(paths, write_video, monkeypatch):
    run(paths)
    computed = []
    real = inference.forward
    monkeypatch.setattr(inference, "forward", lambda *a: computed.append(len(a[1])) or real(*a))
    run(paths)
    assert computed == []
    assert record(paths)["counts"]["reused"] == 6
    path = write_video("mp4/p10/s3/clip.mp4", frames=23, seed=99)  # another video of the same name
    rows = [
        dataclasses.replace(row, mp4_bytes=path.stat().st_size) if row.mp4 == "s3/clip.mp4" else row
        for row in manifest.read(paths.table)
    ]
    manifest.write(paths.table, rows)
    run(paths)
    assert computed == [1]
    manifest.write(paths.table, rows[:3])  # as under `limit`
    assert list(run(paths)) == ["s0/clip.mp4", "s1/clip.mp4"]
    manifest.write(paths.table, rows)
    run(paths)
    assert computed == [1]
    run(paths, dataclasses.replace(MODEL, num_frames=8))
    assert sum(computed) == 1 + 6
    run(paths)  # back to the setting before
    assert sum(computed) == 1 + 6


def test_a_selection_embeds_its_clips_and_widened_only_the_others(paths, monkeypatch):
    computed = []
    real = inference.forward
    monkeypatch.setattr(inference, "forward", lambda *a: computed.append(len(a[1])) or real(*a))
    few = run(paths, tables=Tables(select="frames > 22"))
    assert list(few) == [f"s{i}/clip.mp4" for i in (3, 4, 5)]
    assert record(paths)["counts"] == {
        **{"converted": 6, "left_out": 3, "embedded": 3, "reused": 0, "failed": 0, "short": 0},
    }
    every = run(paths)
    assert sum(computed) == 6
    assert all(torch.equal(every[key], vector) for key, vector in few.items())
    assert run(paths, tables=Tables(select="frames > 99")) == {}
    assert len(run(paths)) == 6
    assert sum(computed) == 6
    with pytest.raises(UserError, match="config: select: no column 'length'"):
        run(paths, tables=Tables(select="length > 3"))


def test_a_killed_job_keeps_its_shards(paths, monkeypatch):
    killed(monkeypatch, paths)
    assert not paths.vectors.exists()
    run(paths)
    assert record(paths)["counts"]["reused"] == 2


def test_a_video_that_cannot_be_read_is_a_row_not_a_vector(paths):
    os.truncate(paths.tree / "s1/clip.mp4", 300)
    (paths.tree / "s4/clip.mp4").unlink()
    vectors = run(paths)
    assert list(vectors) == [f"s{i}/clip.mp4" for i in (0, 2, 3, 5)]
    lines = paths.failed.read_text().splitlines()
    assert lines == ["key\treason", "s1/clip.mp4\tcannot be opened as a video", "s4/clip.mp4\tno such file"]
    assert record(paths)["counts"]["failed"] == 2
    with pytest.raises(UserError, match=r"p10: 2 of 6 clips have no vector, .*the reasons are in .*failed\.tsv"):
        run(paths, max_failed_fraction=0.1)


def test_a_vector_that_is_not_finite_is_a_failure(paths, monkeypatch):
    real = inference.forward

    def breaks(*arguments):
        made = real(*arguments).each(torch.clone)
        made.vectors[0, 5] = float("inf")
        return made

    monkeypatch.setattr(inference, "forward", breaks)
    assert len(run(paths, batch_size=3, save_every=10)) == 4
    assert paths.failed.read_text().count("NaN or Inf") == 2


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile on a CPU needs g++")
def test_the_encoder_is_compiled_where_it_is_asked_for(paths, scalar_code):
    first = run(paths)
    assert record(paths)["compiled"] is False
    for path in paths.state.iterdir():
        path.unlink()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    again = run(paths, compile=True)
    assert record(paths)["compiled"] is True
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    assert all((again[key] - vector).norm() / vector.norm() < 1e-5 for key, vector in first.items())
    for path in paths.state.iterdir():
        path.unlink()
    run(paths, compile=True, batch_size=50, save_every=100)
    assert record(paths)["compiled"] is False  # there is no full batch
    torch._dynamo.reset()


def test_by_itself_it_is_compiled_on_a_gpu_for_many_clips():
    large = dataclasses.replace(MODEL, constructor="vit_large", resolution=256)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert not embedding._pays(large, gpu, 18_000)
    assert embedding._pays(large, gpu, 18_500)
    assert not embedding._pays(large, cpu, 525_328)


def test_wrong_files_and_no_gpu_are_one_line(paths, tmp_path):
    with pytest.raises(UserError, match="no checkpoint key 'target_encoder'"):
        run(paths, dataclasses.replace(MODEL, entry="target_encoder"))
    with pytest.raises(UserError, match="no such checkpoint"):
        run(dataclasses.replace(paths, checkpoint=tmp_path / "absent.pt"))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="torch sees no GPU"):
            run(paths, device="cuda")


def test_a_table_may_have_nothing_for_a_folder_and_not_for_all(paths, tmp_path):
    """The verdict is over the files of the collection: its folders are looked at where the own one has no row."""
    view, looked = tmp_path / "views.csv", []
    table = Table(str(view), "path", "video", name="tables.0")
    for folder, name in (("p10", "s0/clip.dcm"), ("p11", "s9/other.dcm")):
        (tmp_path / "dicom" / folder / name).parent.mkdir(parents=True)
        (tmp_path / "dicom" / folder / name).touch()

    def embedded(*folders):
        def collection():
            looked.append(folders)
            return {name: Folder(name, str(tmp_path / "dicom" / name)) for name in folders}

        return run(paths, tables=Tables(None, None, (table,), "view == 'A4C'"), collection=collection)

    view.write_text("video,view\np10/s1/clip.mp4,A4C\n")
    assert list(embedded("p10")) == ["s1/clip.mp4"]
    assert not looked
    view.write_text("video,view\np11/s9/other.mp4,A4C\n")
    assert embedded("p10", "p11") == {}
    assert looked == [("p10", "p11")]
    with pytest.raises(UserError, match=r"none of its 1 keys is that of a file: it has 'p11/s9/other\.mp4'"):
        embedded("p10")


def test_a_study_that_patients_share_is_told_by_the_job_that_sees_one_of_them(paths, tmp_path):
    (tmp_path / "dicom/p10/1").mkdir(parents=True)
    (tmp_path / "dicom/p11/1").mkdir(parents=True)
    for name in ("p10/1/clip.dcm", "p11/1/clip.dcm"):
        (tmp_path / "dicom" / name).touch()
    (row, *_) = [row for row in manifest.read(paths.table) if row.status == "converted"]
    (paths.tree / "1").mkdir()
    shutil.copy2(paths.tree / row.mp4, paths.tree / "1/clip.mp4")
    manifest.write(paths.table, [dataclasses.replace(row, path="1/clip.dcm", mp4="1/clip.mp4")])
    (tmp_path / "studies.csv").write_text("study_id,quality\n1,good\n")
    table = Table(str(tmp_path / "studies.csv"), "study", "study_id", name="tables.0")
    folders = {name: Folder(name, str(tmp_path / "dicom" / name)) for name in ("p10", "p11")}
    known = Tables(None, None, (table,), "quality == 'good'", "{patient}/{study}/*")
    with pytest.raises(UserError, match="the patients '10' and '11' both have a study '1'; give the table a column"):
        run(paths, tables=known, collection=lambda: folders)
    assert list(run(paths, tables=known, collection=lambda: {"p10": folders["p10"]})) == ["1/clip.mp4"]


def test_an_empty_folder_gives_an_empty_file(paths):
    manifest.write(paths.table, [Row("s0/still.dcm", "", "skipped", "single frame")])
    assert run(paths) == {}
    keys, matrix = read_vectors(paths.vectors)
    assert (keys, matrix.numel()) == ([], 0)


def test_bf16_stays_near_fp32(paths):
    exact, rounded = run(paths), run(paths, dataclasses.replace(MODEL, precision="bf16"))
    a, b = (np.stack([v.numpy() for v in vectors.values()]) for vectors in (exact, rounded))
    assert 0 < np.linalg.norm(a - b) / np.linalg.norm(a) < 2e-2


def fed_with(recipe):
    return dataclasses.replace(MODEL, recipe=recipe)


def by_hand(paths, key, indices, keep=None):
    """The vector of 16 frames, read, masked and computed here."""
    row = next(row for row in manifest.read(paths.table) if row.mp4 == key)
    frames = video.read(paths.tree / key, indices, row.frames)
    frames = frames if keep is None else frames * keep[None, :, :, None]
    encoder = checkpoint.load(paths.checkpoint, MODEL)
    with torch.inference_mode():
        return encoder(preprocessing.preprocess(torch.from_numpy(frames)[None], 64)).mean(dim=1)[0]


def test_the_guide_s_recipe_is_what_the_guide_does(paths):
    """To the bit: frames spread over the clip, nothing masked."""
    vectors = run(paths, batch_size=1)
    assert torch.equal(vectors["s3/clip.mp4"], by_hand(paths, "s3/clip.mp4", np.linspace(0, 22, 16, dtype=int)))


def test_echojepa_s_recipe_masks_and_samples_as_theirs(paths):
    vectors = run(paths, fed_with(RECIPES["echojepa"]), batch_size=1)
    indices = [0, 3, 7, 11, 15, 19, *[22] * 10]  # 23 frames: 7 at stride 3, the last of them the last frame
    expected = by_hand(paths, "s3/clip.mp4", [int(i) for i in sampling.sample(23, 16, RECIPES["echojepa"], None)[0]])
    masked = by_hand(paths, "s3/clip.mp4", [*indices[:6], *[22] * 10], masks.boxes(64, 64))
    assert torch.equal(vectors["s3/clip.mp4"], masked)
    assert not torch.allclose(masked, expected)
    made = record(paths)
    assert made["counts"]["short"] == 6  # none has 48 frames
    assert made["recipe"]["name"] == "echojepa"
    assert made["preprocessing"].startswith("16 frames as EchoJEPA's training took them")


def test_several_clips_a_video_are_averaged(paths):
    recipe = Recipe("halves", clips_per_video=2)
    vectors = run(paths, fed_with(recipe))
    halves = [by_hand(paths, "s4/clip.mp4", np.linspace(a, a + 11, 16, dtype=int)) for a in (0, 12)]
    assert (vectors["s4/clip.mp4"] - torch.stack(halves).mean(0)).norm() / halves[0].norm() < 1e-5
    assert (halves[0] - halves[1]).norm() / halves[0].norm() > 1e-3
    assert record(paths)["counts"]["short"] == 6  # 20 to 25 frames are fewer than 2 x 16


def test_a_recipe_is_part_of_the_fingerprint_and_so_is_what_it_reads(paths):
    recipe = Recipe("eight", sampling="rate", rate=8.0)
    run(paths, fed_with(recipe))
    run(paths)
    assert record(paths)["counts"]["reused"] == 0
    run(paths, fed_with(recipe))
    assert record(paths)["counts"]["reused"] == 6
    manifest.write(paths.table, [dataclasses.replace(row, fps=60.0) for row in manifest.read(paths.table)])
    run(paths, fed_with(recipe))
    assert record(paths)["counts"]["reused"] == 0
    run(paths)  # to which the true rate does not matter
    assert record(paths)["counts"]["reused"] == 6


def test_a_clip_without_a_sector_is_a_row_not_a_vector(paths, write_video):
    path = write_video("mp4/p10/s5/clip.mp4", frames=1)
    rows = [
        dataclasses.replace(row, frames=1, mp4_bytes=path.stat().st_size) if row.mp4 == "s5/clip.mp4" else row
        for row in manifest.read(paths.table)
    ]
    manifest.write(paths.table, rows)
    assert len(run(paths, fed_with(Recipe("sector", mask="sector")))) == 5
    assert "s5/clip.mp4\tno sector found: nothing moves" in paths.failed.read_text()
