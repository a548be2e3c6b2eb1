"""A folder's MP4 tree to vectors: one a clip or a reason, kept work, failures."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from echo_embeddings.convert import video
from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.recipe import RECIPES, Recipe
from echo_embeddings.core.settings import Model, Tables
from echo_embeddings.core.vectors import read_vectors
from echo_embeddings.embed import inference, masks, sampling
from echo_embeddings.embed.folder import ComputeOptions, embed_folder
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import ARCHITECTURES

MODEL = Model("tiny", "vit_tiny", 64, 192, "encoder", 16, "fp32")


@dataclasses.dataclass(frozen=True)
class Paths:
    """Where the folder p10 is read, and where the results of the model tiny lie."""

    tree: Path
    checkpoint: Path
    layout: Layout

    table = property(lambda self: self.layout.manifest(64, "p10"))
    state = property(lambda self: self.layout.state("embed", "tiny", "p10"))
    digests = property(lambda self: self.layout.checkpoint_digests())
    vectors = property(lambda self: self.layout.vectors("tiny", "p10"))
    run = property(lambda self: self.layout.run_record("tiny", "p10"))
    failed = property(lambda self: self.layout.failed_clips("tiny", "p10"))
    features = property(lambda self: self.layout.root / "features")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    checkpoint.save(path, {"encoder": checkpoint.draw(ARCHITECTURES["vit_tiny"], 0).state_dict()}, "drawn for a test")
    return path


@pytest.fixture
def places(tmp_path, weights, write_video):
    """Six clips of different content, the third of 9 frames, and their manifest."""
    rows = []
    for i in range(6):
        frames = 9 if i == 2 else 20 + i
        path = write_video(f"mp4/p10/s{i}/clip.mp4", frames=frames, seed=i)
        rows.append(Row(f"s{i}/clip.dcm", f"s{i}/clip.mp4", "converted", "", frames, mp4_bytes=path.stat().st_size))
    rows.append(Row("s0/still.dcm", "", "skipped", "single frame"))
    places = Paths(tmp_path / "mp4/p10", weights, Layout(tmp_path / "results"))
    manifest.write(places.table, rows)
    return places


def run(places, model=MODEL, max_failed_fraction=0.5, tables=None, pooling="mean", **changes):
    options = ComputeOptions("cpu", batch_size=4, auto=False, num_workers=0, threads=2, save_every=2)
    options = dataclasses.replace(options, **changes)
    embed_folder(
        "p10", model, places.checkpoint, places.tree, places.layout, options,
        max_failed_fraction=max_failed_fraction, pooling=pooling, tables=tables,
    )  # fmt: skip
    return torch.load(places.vectors)


def record(places):
    return json.loads(places.run.read_text())


def test_one_vector_a_clip_sorted_and_how_it_was_made(places):
    vectors = run(places)
    assert list(vectors) == [f"s{i}/clip.mp4" for i in range(6)]
    assert all(v.shape == (192,) and v.dtype == torch.float32 and v.isfinite().all() for v in vectors.values())
    made = record(places)
    assert made["counts"] == {
        **{"converted": 6, "left_out": 0, "embedded": 6, "reused": 0, "failed": 0, "short": 1},
    }
    assert made["checkpoint_sha256"] == checkpoint.sha256(places.checkpoint, places.digests)
    assert (made["model"], made["entry"], made["weights"]) == ("tiny", "encoder", "drawn for a test")
    assert places.failed.read_text() == "key\treason\n"


def test_batches_workers_and_order_do_not_change_a_vector(places):
    first = run(places)
    for options in ({"batch_size": 1}, {"batch_size": 5, "num_workers": 2}):
        for path in places.state.iterdir():
            path.unlink()
        again = run(places, **options)
        for key, vector in first.items():
            assert (again[key] - vector).norm() / vector.norm() < 1e-5


def test_only_what_is_missing_is_computed(places, write_video, monkeypatch):
    run(places)
    computed = []
    real = inference.forward
    monkeypatch.setattr(inference, "forward", lambda *a: computed.append(len(a[1])) or real(*a))
    run(places)
    assert computed == []
    assert record(places)["counts"]["reused"] == 6
    path = write_video("mp4/p10/s3/clip.mp4", frames=23, seed=99)  # another video of the same name
    rows = [
        dataclasses.replace(row, mp4_bytes=path.stat().st_size) if row.mp4 == "s3/clip.mp4" else row
        for row in manifest.read(places.table)
    ]
    manifest.write(places.table, rows)
    run(places)
    assert computed == [1]
    manifest.write(places.table, rows[:3])  # as under `limit`
    assert list(run(places)) == ["s0/clip.mp4", "s1/clip.mp4"]
    manifest.write(places.table, rows)
    run(places)
    assert computed == [1]
    run(places, dataclasses.replace(MODEL, num_frames=8))
    assert sum(computed) == 1 + 6
    run(places)  # back to the setting before
    assert sum(computed) == 1 + 6


def test_a_selection_embeds_its_clips_and_widened_only_the_others(places, monkeypatch):
    computed = []
    real = inference.forward
    monkeypatch.setattr(inference, "forward", lambda *a: computed.append(len(a[1])) or real(*a))
    few = run(places, tables=Tables(select="frames > 22"))
    assert list(few) == [f"s{i}/clip.mp4" for i in (3, 4, 5)]
    assert record(places)["counts"] == {
        **{"converted": 6, "left_out": 3, "embedded": 3, "reused": 0, "failed": 0, "short": 0},
    }
    every = run(places)
    assert sum(computed) == 6
    assert all(torch.equal(every[key], vector) for key, vector in few.items())
    assert run(places, tables=Tables(select="frames > 99")) == {}
    assert len(run(places)) == 6
    assert sum(computed) == 6
    with pytest.raises(UserError, match="config: select: no column 'length'"):
        run(places, tables=Tables(select="length > 3"))


def killed(monkeypatch, places, **changes):
    """A run that dies at its second batch."""
    real, calls = inference.forward, []

    def dies_at_the_second(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(inference, "forward", dies_at_the_second)
        run(places, batch_size=2, save_every=4, **changes)


def test_a_killed_job_keeps_its_shards(places, monkeypatch):
    killed(monkeypatch, places)
    assert not places.vectors.exists()
    run(places)
    assert record(places)["counts"]["reused"] == 2


def test_a_video_that_cannot_be_read_is_a_row_not_a_vector(places):
    os.truncate(places.tree / "s1/clip.mp4", 300)
    (places.tree / "s4/clip.mp4").unlink()
    vectors = run(places)
    assert list(vectors) == [f"s{i}/clip.mp4" for i in (0, 2, 3, 5)]
    lines = places.failed.read_text().splitlines()
    assert lines == ["key\treason", "s1/clip.mp4\tcannot be opened as a video", "s4/clip.mp4\tno such file"]
    assert record(places)["counts"]["failed"] == 2
    with pytest.raises(UserError, match=r"p10: 2 of 6 clips have no vector, .*the reasons stand in .*failed\.tsv"):
        run(places, max_failed_fraction=0.1)


def test_a_vector_that_is_not_finite_is_a_failure(places, monkeypatch):
    real = inference.forward

    def breaks(*arguments):
        made = real(*arguments).each(torch.clone)
        made.vectors[0, 5] = float("inf")
        return made

    monkeypatch.setattr(inference, "forward", breaks)
    assert len(run(places, batch_size=3, save_every=10)) == 4
    assert places.failed.read_text().count("NaN or Inf") == 2


def test_wrong_files_and_no_gpu_are_one_line(places, tmp_path):
    with pytest.raises(UserError, match="no checkpoint key 'target_encoder'"):
        run(places, dataclasses.replace(MODEL, entry="target_encoder"))
    with pytest.raises(UserError, match="no such checkpoint"):
        run(dataclasses.replace(places, checkpoint=tmp_path / "absent.pt"))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="torch sees no GPU"):
            run(places, device="cuda")


def test_an_empty_folder_gives_an_empty_file(places):
    manifest.write(places.table, [Row("s0/still.dcm", "", "skipped", "single frame")])
    assert run(places) == {}
    keys, matrix = read_vectors(places.vectors)
    assert (keys, matrix.numel()) == ([], 0)


def test_bf16_stays_near_fp32(places):
    exact, rounded = run(places), run(places, dataclasses.replace(MODEL, precision="bf16"))
    a, b = (np.stack([v.numpy() for v in vectors.values()]) for vectors in (exact, rounded))
    assert 0 < np.linalg.norm(a - b) / np.linalg.norm(a) < 2e-2


def fed_with(recipe):
    return dataclasses.replace(MODEL, recipe=recipe)


def by_hand(places, key, indices, keep=None):
    """The vector of 16 frames, read, masked and computed here."""
    row = next(row for row in manifest.read(places.table) if row.mp4 == key)
    frames = video.read(places.tree / key, indices, row.frames)
    frames = frames if keep is None else frames * keep[None, :, :, None]
    encoder = checkpoint.load(places.checkpoint, "tiny", "vit_tiny", 192, "encoder", "vjepa2")
    with torch.inference_mode():
        return encoder(sampling.preprocess(torch.from_numpy(frames)[None], 64)).mean(dim=1)[0]


def test_the_guide_s_recipe_is_what_the_guide_does(places):
    """To the bit: frames spread over the clip, nothing masked."""
    vectors = run(places, batch_size=1)
    assert torch.equal(vectors["s3/clip.mp4"], by_hand(places, "s3/clip.mp4", np.linspace(0, 22, 16, dtype=int)))


def test_echojepa_s_recipe_masks_and_samples_as_theirs(places):
    vectors = run(places, fed_with(RECIPES["echojepa"]), batch_size=1)
    indices = [0, 3, 7, 11, 15, 19, *[22] * 10]  # 23 frames: 7 at stride 3, the last of them the last frame
    expected = by_hand(places, "s3/clip.mp4", [int(i) for i in sampling.sample(23, 16, RECIPES["echojepa"], None)[0]])
    masked = by_hand(places, "s3/clip.mp4", [*indices[:6], *[22] * 10], masks.boxes(64, 64))
    assert torch.equal(vectors["s3/clip.mp4"], masked)
    assert not torch.allclose(masked, expected)
    made = record(places)
    assert made["counts"]["short"] == 6  # none has 48 frames
    assert made["recipe"]["name"] == "echojepa"
    assert made["preprocessing"].startswith("16 frames as EchoJEPA's training took them")


def test_several_clips_a_video_are_averaged(places):
    recipe = Recipe("halves", clips_per_video=2)
    vectors = run(places, fed_with(recipe))
    halves = [by_hand(places, "s4/clip.mp4", np.linspace(a, a + 11, 16, dtype=int)) for a in (0, 12)]
    assert (vectors["s4/clip.mp4"] - torch.stack(halves).mean(0)).norm() / halves[0].norm() < 1e-5
    assert (halves[0] - halves[1]).norm() / halves[0].norm() > 1e-3
    assert record(places)["counts"]["short"] == 6  # 20 to 25 frames are fewer than 2 x 16


def test_a_recipe_is_part_of_the_fingerprint_and_so_is_what_it_reads(places):
    recipe = Recipe("eight", sampling="rate", rate=8.0)
    run(places, fed_with(recipe))
    run(places)
    assert record(places)["counts"]["reused"] == 0
    run(places, fed_with(recipe))
    assert record(places)["counts"]["reused"] == 6
    manifest.write(places.table, [dataclasses.replace(row, fps=60.0) for row in manifest.read(places.table)])
    run(places, fed_with(recipe))
    assert record(places)["counts"]["reused"] == 0
    run(places)  # to which the true rate does not matter
    assert record(places)["counts"]["reused"] == 6


def test_a_clip_without_a_sector_is_a_row_not_a_vector(places, write_video):
    path = write_video("mp4/p10/s5/clip.mp4", frames=1)
    rows = [
        dataclasses.replace(row, frames=1, mp4_bytes=path.stat().st_size) if row.mp4 == "s5/clip.mp4" else row
        for row in manifest.read(places.table)
    ]
    manifest.write(places.table, rows)
    assert len(run(places, fed_with(Recipe("sector", mask="sector")))) == 5
    assert "s5/clip.mp4\tno sector found: nothing moves" in places.failed.read_text()
