"""Features beside vectors: kept through kills, used again, found by their index."""

import csv
import dataclasses
import json

import pytest
import torch
from safetensors import safe_open

from echo_embeddings import embed, extract, manifest
from echo_embeddings.files import UserError
from echo_embeddings.recipe import Recipe
from test_embed import MODEL, places, run, weights  # noqa: F401

TWO = dataclasses.replace(MODEL, recipe=Recipe("two", clips_per_video=2))


@pytest.fixture
def with_index(places, tmp_path):  # noqa: F811
    return dataclasses.replace(places, index=tmp_path / "features/tokens/tiny/p10.index.tsv")


@pytest.fixture
def computed(monkeypatch):
    """How many clips each call of the encoder had."""
    sizes, real = [], extract.forward
    monkeypatch.setattr(extract, "forward", lambda *a: sizes.append(len(a[1])) or real(*a))
    return sizes


def features(places):  # noqa: F811
    """As docs/features.md reads them."""
    found = {}
    with places.index.open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            with safe_open(places.index.parent / row["file"], "pt") as shard:
                found[row["key"]] = shard.get_tensor(row["key"])
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tokens_pooled_again_are_the_vectors(with_index, precision):
    model = dataclasses.replace(MODEL, precision=precision)
    vectors = run(with_index, model, keep="tokens")
    found = features(with_index)
    assert list(found) == list(vectors)
    for key, tokens in found.items():
        assert (tokens.dtype, tokens.shape) == (torch.float16, (1, 8, 16, 192))
        again = tokens.float().mean(dim=(0, 1, 2))
        assert (again - vectors[key]).norm() < 1e-5 * vectors[key].norm()
    says = json.loads(with_index.run.read_text())["features"]
    assert says == {"pool": "tokens", "dtype": "float16", "shape": [1, 8, 16, 192], "bytes": 6 * 8 * 16 * 192 * 2}


@pytest.mark.parametrize(("keep", "shape"), [("clips", (2, 192)), ("time", (2, 8, 192))])
def test_clips_kept_apart_and_tubelets_average_to_the_vector(with_index, keep, shape):
    vectors = run(with_index, TWO, keep=keep)
    found = features(with_index)
    assert all(made.shape == shape and made.dtype == torch.float32 for made in found.values())
    for key, vector in vectors.items():
        torch.testing.assert_close(found[key].flatten(0, -2).mean(dim=0), vector, rtol=1e-5, atol=1e-5)
    first, second = found["s1/clip.mp4"].flatten(1)
    assert not torch.allclose(first, second)  # of two halves of the video


def test_vectors_stay_what_they_are(places, with_index, computed):  # noqa: F811
    before = run(places)
    assert json.loads(places.run.read_text())["features"] is None
    computed.clear()
    after = run(with_index, keep="tokens")
    assert sum(computed) == 6  # tokens of clips that had a vector and no tokens
    assert all(torch.equal(before[key], after[key]) for key in before)
    computed.clear()
    run(with_index, keep="tokens")
    run(places)
    assert computed == []


def test_what_a_killed_job_saved_is_used_again(with_index, monkeypatch):
    real, calls = extract.forward, []

    def dies_at_the_second(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(extract, "forward", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(with_index, keep="tokens", batch_size=2, save_every=4)
    assert not with_index.index.exists()
    monkeypatch.setattr(extract, "forward", real)
    vectors = run(with_index, keep="tokens")
    assert json.loads(with_index.run.read_text())["counts"]["reused"] == 2
    assert list(features(with_index)) == list(vectors)


def test_files_are_as_large_as_what_may_wait(with_index, monkeypatch):
    monkeypatch.setattr(embed, "SHARD_BYTES", 2 * 8 * 16 * 192 * 2)  # two clips
    run(with_index, keep="tokens", batch_size=1, save_every=1000)
    assert len(list((with_index.index.parent / "p10").glob("*.safetensors"))) == 2
    assert len(features(with_index)) == 6


def test_a_file_that_is_gone_is_made_again_and_a_damaged_one_is_named(with_index, computed):
    run(with_index, keep="tokens", batch_size=1, save_every=2)
    first, second, *_ = sorted((with_index.index.parent / "p10").glob("*.safetensors"))
    with safe_open(first, "pt") as shard:
        gone = len(list(shard.keys()))
    first.unlink()
    computed.clear()
    run(with_index, keep="tokens")
    assert sum(computed) == gone
    assert len(features(with_index)) == 6
    second.write_bytes(second.read_bytes()[:100])
    with pytest.raises(UserError, match=f"{second.name}: cannot be read as a file of features: .*; delete it"):
        run(with_index, keep="tokens")


def test_a_token_beyond_float16_is_a_row(with_index, monkeypatch):
    real = extract.forward

    def large(*arguments):
        made = real(*arguments).each(torch.clone)
        made.features[0, 0, 0, 0, 0] = float("inf")
        return made

    monkeypatch.setattr(extract, "forward", large)
    vectors = run(with_index, keep="tokens", batch_size=6, save_every=10)
    assert len(vectors) == len(features(with_index)) == 5
    assert with_index.failed.read_text().count("beyond float16") == 1


def test_only_listed_clips_stand_in_the_index(with_index):
    run(with_index, keep="tokens")
    rows = [row for row in manifest.read(with_index.table) if row.mp4 != "s2/clip.mp4"]
    manifest.write(with_index.table, rows)
    run(with_index, keep="tokens")
    assert "s2/clip.mp4" not in features(with_index)
    assert len(features(with_index)) == 5
