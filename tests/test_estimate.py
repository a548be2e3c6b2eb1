"""What jobs ask of a cluster follows from their work."""

import pytest

from echo_embeddings.core import configuration, settings
from echo_embeddings.encoders import checkpoint, contract
from echo_embeddings.encoders.architectures import ARCHITECTURES
from echo_embeddings.tools import estimate

CONFIG = configuration.defaults()
REGISTRY = configuration.check(CONFIG, data=False)
CLIPS = 52_500  # of one of MIMIC-IV-Echo's ten folders


def embed(name, clips=CLIPS, device="cuda"):
    model = settings.model(CONFIG, REGISTRY, name)
    size = contract.size(model)
    minutes = estimate.embed_minutes(clips, model, size, device=device, num_workers=8, threads=8)
    batch_size = REGISTRY[name]["batch_size"]
    return estimate.embed_mb(
        clips, model, size, device=device, batch_size=batch_size, num_workers=8, pool="mean"
    ), minutes


# TFLOP a clip of 16 frames, as torch.utils.flop_counter counts them.
@pytest.mark.parametrize(("name", "tflop"), [("vitl", 1.65), ("vith", 3.3), ("vitg", 5.1), ("vitg-384", 14.1)])
def test_operations_follow_from_the_architecture(name, tflop):
    model = settings.model(CONFIG, REGISTRY, name)
    assert contract.size(model).flop == pytest.approx(tflop * 1e12, rel=0.03)


def test_parameters_are_those_of_the_encoder():
    architecture = ARCHITECTURES["vit_tiny"]
    encoder = checkpoint.draw(architecture, 0)
    assert architecture.parameters() == pytest.approx(sum(p.numel() for p in encoder.parameters()), rel=0.01)


def test_a_larger_model_and_more_clips_ask_for_more_time():
    minutes = {name: embed(name)[1] for name in REGISTRY}
    assert minutes["vitl"] < minutes["vith"] < minutes["vitg"] < minutes["vitg-384"]
    assert minutes["vitg-384"] > 4 * minutes["vitl"]
    assert embed("vitl", clips=100)[1] < minutes["vitl"] / 4
    # Preemptable partitions allow two days; the third attempt asks for three times this.
    assert 3 * minutes["vitg-384"] < 2 * 24 * 60
    # 27 clips a second and no more: the reference's rate, which must fit in.
    assert minutes["vitl"] > CLIPS / 27 / 60


def test_memory_follows_clips_workers_and_device():
    assert embed("vitl")[0] > embed("vitl", clips=100)[0]
    assert embed("vitl", device="cpu")[0] > embed("vitl")[0]
    assert estimate.convert_mb(CLIPS, 16) > estimate.convert_mb(CLIPS, 8) > 8 * 200
    assert estimate.convert_minutes(CLIPS, 8) > estimate.convert_minutes(CLIPS, 16) > estimate.convert_minutes(10, 16)
    assert estimate.merged_mb(10 * CLIPS, 1408) > 2 * 10 * CLIPS * 1408 * 4 / 1e6
    assert estimate.merged_minutes(10 * CLIPS, 1408) > estimate.merged_minutes(CLIPS, 1408)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (999.9, "1 kB"),
        (8.65e6, "8.65 MB"),
        (999.7e6, "1 GB"),
        (2.2e15, "2.2e+03 TB"),
    ],
)
def test_sizes_in_words(number, words):
    assert estimate.bytes_in_words(number) == words
