"""Features beside vectors: kept through kills, used again, found by their index."""

import csv
import dataclasses
import json

import pytest
import torch
from safetensors import safe_open

from echo_embeddings.core import manifest
from echo_embeddings.core.recipe import Recipe
from echo_embeddings.embed import inference, saving
from testing.embedding import MODEL, killed, run
from testing.processes import small_disk

TWO = dataclasses.replace(MODEL, recipe=Recipe("two", clips_per_video=2))


@pytest.fixture
def there(six_clips):
    return six_clips


@pytest.fixture
def computed(monkeypatch):
    """How many clips each call of the encoder had."""
    sizes, real = [], inference.forward
    monkeypatch.setattr(inference, "forward", lambda *a: sizes.append(len(a[1])) or real(*a))
    return sizes


def features(paths, pool="tokens"):
    """As docs/features.md reads them."""
    found = {}
    index = paths.layout.feature_index(pool, "tiny", "p10")
    with index.open() as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            with safe_open(index.parent / row["file"], "pt") as shard:
                found[row["key"]] = shard.get_tensor(row["key"])
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tokens_pooled_again_are_the_vectors(there, precision):
    model = dataclasses.replace(MODEL, precision=precision)
    vectors = run(there, model, pooling="tokens")
    found = features(there)
    assert list(found) == list(vectors)
    for key, tokens in found.items():
        assert (tokens.dtype, tokens.shape) == (torch.float16, (1, 8, 16, 192))
        again = tokens.float().mean(dim=(0, 1, 2))
        assert (again - vectors[key]).norm() < 1e-5 * vectors[key].norm()
    says = json.loads(there.run.read_text())["features"]
    assert says == {"pool": "tokens", "dtype": "float16", "shape": [1, 8, 16, 192], "bytes": 6 * 8 * 16 * 192 * 2}


@pytest.mark.parametrize(("pool", "shape"), [("clips", (2, 192)), ("time", (2, 8, 192))])
def test_clips_kept_apart_and_tubelets_average_to_the_vector(there, pool, shape):
    vectors = run(there, TWO, pooling=pool)
    found = features(there, pool)
    assert all(made.shape == shape and made.dtype == torch.float32 for made in found.values())
    for key, vector in vectors.items():
        torch.testing.assert_close(found[key].flatten(0, -2).mean(dim=0), vector, rtol=1e-5, atol=1e-5)
    first, second = found["s1/clip.mp4"].flatten(1)
    assert not torch.allclose(first, second)  # of two halves of the video


def test_vectors_stay_what_they_are(six_clips, there, computed):
    before = run(six_clips)
    assert json.loads(six_clips.run.read_text())["features"] is None
    computed.clear()
    after = run(there, pooling="tokens")
    assert sum(computed) == 6  # tokens of clips that had a vector and no tokens
    assert all(torch.equal(before[key], after[key]) for key in before)
    computed.clear()
    run(there, pooling="tokens")
    run(six_clips)
    assert computed == []


def test_what_a_killed_job_saved_is_used_again(there, monkeypatch):
    killed(monkeypatch, there, pooling="tokens")
    assert not there.layout.feature_index("tokens", "tiny", "p10").exists()
    vectors = run(there, pooling="tokens")
    assert json.loads(there.run.read_text())["counts"]["reused"] == 2
    assert list(features(there)) == list(vectors)


def test_files_are_as_large_as_what_may_wait(there, monkeypatch):
    monkeypatch.setattr(saving, "SHARD_BYTES", 2 * 8 * 16 * 192 * 2)  # two clips
    run(there, pooling="tokens", batch_size=1, save_every=1000)
    assert len(list(there.features.rglob("*.safetensors"))) == 2
    assert len(features(there)) == 6


def test_a_file_that_is_gone_is_made_again(there, computed):
    run(there, pooling="tokens", batch_size=1, save_every=2)
    first, *_ = sorted(there.features.rglob("*.safetensors"))
    with safe_open(first, "pt") as shard:
        gone = len(list(shard.keys()))
    first.unlink()
    computed.clear()
    run(there, pooling="tokens")
    assert sum(computed) == gone
    assert len(features(there)) == 6


def test_a_token_beyond_float16_is_a_row(there, monkeypatch):
    real = inference.forward

    def large(*arguments):
        made = real(*arguments).each(torch.clone)
        made.finite[0] = False
        return made

    monkeypatch.setattr(inference, "forward", large)
    vectors = run(there, pooling="tokens", batch_size=6, save_every=10)
    assert len(vectors) == len(features(there)) == 5
    assert there.failed.read_text().count("beyond float16") == 1


def test_only_listed_clips_stand_in_the_index(there):
    run(there, pooling="tokens")
    rows = [row for row in manifest.read(there.table) if row.mp4 != "s2/clip.mp4"]
    manifest.write(there.table, rows)
    run(there, pooling="tokens")
    assert "s2/clip.mp4" not in features(there)
    assert len(features(there)) == 5


def files_of(paths):
    """Every key of every file of features, as often as it stands there."""
    keys = []
    for path in paths.features.rglob("*.safetensors"):
        with safe_open(path, "pt") as shard:
            keys += list(shard.keys())
    return sorted(keys)


def test_a_full_disk_takes_features_and_leaves_the_vectors(there, computed):
    with small_disk(there.features, "100k"):  # room for two clips
        with pytest.raises(OSError, match="No space left on device"):
            run(there, pooling="tokens", batch_size=2, save_every=1000)
        computed.clear()
        assert len(run(there)) == 6  # without features: what was computed is there
        assert computed == []


def test_no_features_are_written_twice(there):
    """Vectors that are lost are made again, and their features stay the ones that are there."""
    run(there, pooling="tokens", batch_size=2, save_every=2)
    for shard in there.state.glob("*.pt"):
        shard.unlink()
    vectors = run(there, pooling="tokens")
    assert files_of(there) == list(features(there)) == list(vectors)


def test_an_index_of_another_pool_tells_of_the_vectors_that_are_there_or_is_gone(there, computed):
    run(there, pooling="time")
    run(there, pooling="tokens")
    assert len(features(there, "time")) == len(features(there)) == 6
    rows = [row for row in manifest.read(there.table) if row.mp4 != "s2/clip.mp4"]
    manifest.write(there.table, rows)
    run(there)
    assert len(features(there, "time")) == len(features(there)) == 5
    run(there, dataclasses.replace(MODEL, num_frames=8), pooling="time")
    assert not there.layout.feature_index("tokens", "tiny", "p10").exists()
    assert next(iter(features(there, "time").values())).shape == (1, 4, 192)
    computed.clear()
    run(there, pooling="tokens")
    assert len(features(there)) == 5
    assert computed == []
