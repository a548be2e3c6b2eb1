"""Feeding the encoder: batches, memory, compilation. Some of the memory is pretended, the encoder is real."""

import dataclasses
import shutil
import subprocess

import pytest
import torch

from echo_embeddings.core.errors import UserError
from echo_embeddings.embed import inference
from echo_embeddings.embed.inference import Extractor
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import ARCHITECTURES
from testing.extraction import new, run
from testing.processes import start_python

CLIPS = 61


@pytest.fixture(scope="module")
def encoder():
    return checkpoint.draw(ARCHITECTURES["vit_tiny"], 0)


@pytest.fixture(scope="module")
def frames():
    return torch.randint(0, 256, (CLIPS, 4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def expected(encoder, frames):
    return inference.forward(encoder, list(frames), 32, torch.float32).vectors


def test_a_fixed_batch_size_is_kept(encoder, frames, expected):
    vectors, sizes = run(new(encoder, 9), frames)
    assert sizes == [9] * 6 + [7]
    torch.testing.assert_close(vectors, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def small_memory(monkeypatch):
    """Makes batches above a size run out of memory."""

    def install(most):
        real = inference.forward

        def limited(encoder, clips, *rest):
            if len(clips) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return real(encoder, clips, *rest)

        monkeypatch.setattr(inference, "forward", limited)

    return install


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_dropped(encoder, frames, expected, small_memory, capsys):
    small_memory(5)
    extractor = new(encoder, 32)
    vectors, sizes = run(extractor, frames)
    assert sizes == [32] + [4] * 7 + [1]
    torch.testing.assert_close(vectors, expected, rtol=1e-5, atol=1e-5)
    said = capsys.readouterr().out
    assert "out of memory with 32 clips, going on with batches of 16" in said
    assert "out of memory with 8 clips, going on with batches of 4" in said


def test_a_clip_that_does_not_fit_alone_is_one_line(encoder, frames, small_memory):
    small_memory(0)
    with pytest.raises(UserError, match="one clip alone does not fit into the memory of cpu: CUDA out of memory"):
        run(new(encoder, 2), frames)


def test_memory_that_really_ends(frames, expected, tmp_path):
    """A process that may have 1.5 GB more, and an encoder whose widest layer takes 256 MB a clip.

    Four clips leave 0.5 GB for what libraries take besides, and eight want 0.5 GB too much: only the layer can fail.
    """
    torch.save(frames, tmp_path / "frames.pt")
    arguments = ("-m", "testing.extraction", tmp_path / "frames.pt", tmp_path / "vectors.pt")
    process = start_python(*arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "out of memory with 32 clips, going on with batches of 16" in said
    assert "out of memory with 8 clips, going on with batches of 4" in said
    assert "out of memory with 4 clips" not in said
    torch.testing.assert_close(torch.load(tmp_path / "vectors.pt"), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("words", ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"])
def test_what_libraries_say_of_memory_counts_too(encoder, frames, expected, monkeypatch, words):
    real = inference.forward

    def limited(encoder, clips, *rest):
        if len(clips) > 4:
            raise RuntimeError(words)
        return real(encoder, clips, *rest)

    monkeypatch.setattr(inference, "forward", limited)
    vectors, _ = run(new(encoder, 32), frames)
    torch.testing.assert_close(vectors, expected, rtol=1e-5, atol=1e-5)


def test_another_error_ends_it(encoder, frames, monkeypatch):
    def breaks(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(inference, "forward", breaks)
    extractor = new(encoder, 4)
    extractor._use_compiled = True
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run(extractor, frames)


class Event:
    """Stands for the event that a GPU sets when a batch is done: not before it is waited for, unless `quick`."""

    def __init__(self, quick):
        self.quick = quick

    def query(self):
        return self.quick

    def synchronize(self):
        self.quick = True


@pytest.mark.parametrize("quick", [True, False])
def test_batches_fly_ahead_and_what_is_done_waits_for_no_clip(encoder, frames, expected, monkeypatch, quick):
    real = Extractor._launch

    def launch(self, batch):
        return dataclasses.replace(real(self, batch), done=Event(quick))

    monkeypatch.setattr(Extractor, "_launch", launch)
    monkeypatch.setattr(inference, "ahead", lambda device: 2)
    handed = made = 0
    extractor = new(encoder, 8)

    def source():
        nonlocal handed
        for clip in enumerate(frames):
            handed += 1
            yield clip

    vectors = []
    for places, found in extractor.run(source()):
        behind = 1 if quick else extractor.in_flight  # the clip in hand
        assert handed - made - len(places) <= behind
        made += len(places)
        vectors.append(found.vectors)
    assert extractor.in_flight == 24
    torch.testing.assert_close(torch.cat(vectors), expected, rtol=1e-5, atol=1e-5)


class Noting(torch.nn.Module):
    """Gives one vector, and notes whether convolutions may round their factors."""

    def forward(self, video):
        self.rounds = torch.backends.cudnn.allow_tf32
        return torch.zeros(len(video), 1)


def test_fp32_is_fp32_in_convolutions_too():
    """Which torch computes in TF32 on a GPU unless it is told otherwise."""
    encoder = Noting()
    assert torch.backends.cudnn.allow_tf32
    inference.forward(encoder, [torch.zeros(4, 32, 32, 3, dtype=torch.uint8)], 32, torch.float32)
    assert not encoder.rounds
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile on a CPU needs g++")
def test_compiled_once_for_full_batches_and_not_for_the_last(frames, expected, scalar_code):
    encoder = checkpoint.draw(ARCHITECTURES["vit_tiny"], 0)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    extractor = new(encoder, 6, compiled=True)
    vectors, sizes = run(extractor, frames)
    assert sizes == [6] * 10 + [1]
    assert extractor.compiled
    # One for all twelve blocks, one for the preprocessing.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert ((vectors - expected).norm(dim=1) / expected.norm(dim=1)).max() < 1e-5
    torch._dynamo.reset()


def test_where_compiling_does_not_work_it_goes_on_without(frames, expected, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    extractor = new(checkpoint.draw(ARCHITECTURES["vit_tiny"], 0), 6, compiled=True)
    with torch._inductor.config.patch({"cpp.cxx": ("/no/such/compiler",)}):
        vectors, _ = run(extractor, frames)
    assert not extractor.compiled
    assert "torch.compile does not work here, going on without: " in capsys.readouterr().out
    assert ((vectors - expected).norm(dim=1) / expected.norm(dim=1)).max() < 1e-5
    torch._dynamo.reset()


def test_where_compiling_cannot_even_begin_it_goes_on_without(frames, expected, capsys):
    encoder = checkpoint.draw(ARCHITECTURES["vit_tiny"], 0)

    def refuses(**_):
        raise FileNotFoundError(2, "No such file or directory", "/no/such/cache")

    encoder.blocks[0].compile = refuses
    extractor = new(encoder, 6, compiled=True)
    vectors, _ = run(extractor, frames)
    assert not extractor.compiled
    assert "torch.compile does not work here, going on without: " in capsys.readouterr().out
    torch.testing.assert_close(vectors, expected, rtol=1e-5, atol=1e-5)
