"""What only a GPU shows: its arithmetic, its memory, compiled code, copies while it computes."""

import json

import pytest
import torch

from echo_embeddings.core.errors import UserError
from echo_embeddings.core.recipe import RECIPES
from echo_embeddings.embed import inference, preprocessing
from echo_embeddings.embed.inference import DTYPES, Extractor
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import ARCHITECTURES, architecture
from testing.embedding import run as embed
from testing.extraction import run

pytestmark = pytest.mark.gpu

CLIPS = 61
RESOLUTION = 64


@pytest.fixture(scope="module")
def frames():
    """Clips in page-locked memory, as the loader hands them over."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (CLIPS, 16, 80, 64, 3), dtype=torch.uint8, generator=generator).pin_memory()


@pytest.fixture(scope="module")
def expected(frames):
    """The vectors that a CPU computes in float32."""
    return inference.forward(drawn(), list(frames), RESOLUTION, torch.float32).vectors


def drawn(family="vjepa2"):
    return checkpoint.draw(architecture("vit_tiny", family), 0)


def on_gpu(encoder, batch_size, precision="fp32", **options):
    device = torch.device("cuda", 0)
    return Extractor(encoder.to(device, DTYPES[precision]), device, precision, RESOLUTION, batch_size, **options)


def apart(vectors, others):
    return float(((vectors - others).norm(dim=1) / others.norm(dim=1)).max())


@pytest.mark.parametrize("family", ["vjepa2", "vjepa2_1"])
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("bf16", 0.03)])
def test_vectors_are_those_of_a_cpu(frames, family, precision, most):
    expected = inference.forward(drawn(family), list(frames), RESOLUTION, torch.float32).vectors
    vectors, sizes = run(on_gpu(drawn(family), 8, precision), frames)
    assert sizes == [8] * 7 + [5]
    assert apart(vectors, expected) < most < apart(expected[1:], expected[:-1]) / 2


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("compiled", [False, True])
def test_frames_that_shrink_are_those_of_a_cpu(recipe, compiled):
    clips = torch.randint(0, 256, (1, 4, 300, 300, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prepare = torch.compile(preprocessing.preprocess, dynamic=False) if compiled else preprocessing.preprocess
    found = prepare(clips.cuda(), RESOLUTION, recipe).cpu()
    assert (found - preprocessing.preprocess(clips, RESOLUTION, recipe)).abs().max() < 1e-3


def test_copies_and_batches_in_flight_mix_no_clips(frames, expected):
    """Each clip many times over, one and two a batch: a copy that a kernel did not wait for shows as a wrong vector."""
    order = torch.randint(0, CLIPS, (2000,), generator=torch.Generator().manual_seed(1)).tolist()
    for batch_size in (1, 2):
        made = list(on_gpu(drawn(), batch_size).run((i, frames[i].clone().pin_memory()) for i in order))
        assert [i for places, _ in made for i in places] == order
        assert apart(torch.cat([pooled.vectors for _, pooled in made]), expected[order]) < 1e-4


@pytest.mark.parametrize("precision", list(DTYPES))
def test_compiled_code_gives_the_same_vectors(frames, precision, capsys):
    eager, _ = run(on_gpu(drawn(), 6, precision), frames)
    torch._dynamo.reset()
    extractor = on_gpu(drawn(), 6, precision, compiled=True)
    compiled, sizes = run(extractor, frames)
    said = capsys.readouterr().out
    assert extractor.compiled
    assert "does not work" not in said
    assert sizes == [6] * 10 + [1]
    assert apart(compiled, eager) < (1e-4 if precision == "fp32" else 0.03)
    torch._dynamo.reset()


@pytest.fixture
def small_memory():
    """Leaves that many bytes of the card to this process."""

    def install(left):
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + left) / total)

    yield install
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_dropped(frames, expected, small_memory, capsys):
    order = [i % CLIPS for i in range(2048)]
    extractor = on_gpu(drawn(), 1024)
    small_memory(2**29)
    made = list(extractor.run((i, frames[i]) for i in order))
    said = capsys.readouterr().out
    assert "out of memory with 1024 clips, going on with batches of 512" in said
    assert [i for places, _ in made for i in places] == order
    assert 1 <= extractor.batch_size <= 512
    assert apart(torch.cat([pooled.vectors for _, pooled in made]), expected[order]) < 1e-4


def test_a_clip_that_does_not_fit_alone_is_one_line(frames, small_memory):
    extractor = on_gpu(checkpoint.draw(ARCHITECTURES["vit_tiny"], 0), 2)
    small_memory(2**20)
    with pytest.raises(UserError, match="one clip alone does not fit into the memory of cuda:0: CUDA out of memory"):
        run(extractor, frames)


def test_a_folder_is_embedded_as_on_a_cpu(six_clips):
    vectors = embed(six_clips, device="cuda", num_workers=2)
    assert json.loads(six_clips.run.read_text())["device"] == torch.cuda.get_device_name(0)
    for path in six_clips.state.iterdir():
        path.unlink()
    again = embed(six_clips)
    assert list(vectors) == list(again)
    assert apart(torch.stack(list(vectors.values())), torch.stack(list(again.values()))) < 1e-4
