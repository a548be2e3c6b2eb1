"""A vector of the pipeline, from MP4 to float32, against an independent way to it; at ViT-L size too."""

import av
import numpy as np
import pytest
import torch

from echo_embeddings.collection.units import Folder
from echo_embeddings.convert import video
from echo_embeddings.convert.folder import convert_file
from echo_embeddings.core import manifest
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.recipe import IMAGENET_MEAN, IMAGENET_STD
from echo_embeddings.core.settings import Model
from echo_embeddings.embed import preprocessing, sampling
from echo_embeddings.embed.folder import ComputeOptions, embed_folder
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import ARCHITECTURES
from testing import oracle
from testing.conversion import SETTINGS
from testing.corpus import CINE


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """MP4 of the two sizes of the cine: different videos, of 120 and of 30 frames."""
    directory = tmp_path_factory.mktemp("videos")
    found = {}
    for name, path in CINE.items():
        row = convert_file(path, name, directory / f"{name}.mp4", SETTINGS)
        found[name] = (directory / f"{name}.mp4", row.frames)
    return found


@pytest.fixture(scope="module", params=["vit_tiny", pytest.param("vit_large", marks=pytest.mark.slow)])
def encoder(request):
    return request.param, checkpoint.draw(ARCHITECTURES[request.param], seed=1)


@pytest.fixture(scope="module")
def reference(videos, encoder):
    constructor, drawn = encoder
    size = ARCHITECTURES[constructor]
    model = oracle.transformers_encoder(drawn.state_dict(), size.embed_dim, size.depth, size.heads, size.mlp_ratio, 256)
    return {
        name: oracle.tokens(model, oracle.model_input(path, 256)).mean(dim=1)[0] for name, (path, _) in videos.items()
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory, encoder):
    path = tmp_path_factory.mktemp("weights") / "drawn.pt"
    checkpoint.save(path, {"encoder": encoder[1].state_dict()}, "drawn for a test")
    return path


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 5e-3), ("bf16", 2e-2)])
def test_the_stage_gives_the_vectors_of_the_oracle(videos, encoder, reference, weights, tmp_path, precision, bound):
    path, frames = videos["large"]
    layout = Layout(tmp_path)
    manifest.write(layout.manifest(256, "p10"), [Row("large.dcm", path.name, "converted", "", frames)])
    constructor, _ = encoder
    model = Model("drawn", constructor, 256, ARCHITECTURES[constructor].embed_dim, "encoder", 16, precision)
    options = ComputeOptions("cpu", batch_size=4, num_workers=0, threads=2, save_every=10)
    embed_folder(Folder("p10", str(path.parent)), model, weights, path.parent, layout, options, max_failed_fraction=0)
    vector = torch.load(layout.vectors("drawn", "p10"))[path.name]
    assert vector.dtype == torch.float32
    assert relative(vector, reference["large"]) < bound
    # The test would prove nothing if all videos had nearly the same vector.
    assert relative(reference["small"], reference["large"]) > 0.1


@pytest.mark.parametrize(
    ("frames", "indices"),
    [
        (1, [0] * 16),
        (2, [0] * 15 + [1]),
        (16, list(range(16))),
        (17, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16]),
        (74, [0, 4, 9, 14, 19, 24, 29, 34, 38, 43, 48, 53, 58, 63, 68, 73]),
    ],
)
def test_frame_indices(frames, indices):
    assert sampling.frame_indices(frames, 16).tolist() == indices
    assert np.array_equal(sampling.frame_indices(frames, 16), np.linspace(0, frames - 1, 16, dtype=int))


@pytest.mark.parametrize(("height", "width"), [(256, 256), (240, 320), (300, 200)])
def test_preprocessing_keeps_the_aspect_and_crops_the_centre(height, width):
    clips = torch.randint(0, 256, (2, 4, height, width, 3), dtype=torch.uint8)
    out = preprocessing.preprocess(clips, 224)
    assert out.shape == (2, 3, 4, 224, 224)
    assert out.dtype == torch.float32
    constant = preprocessing.preprocess(torch.full((1, 2, height, width, 3), 255, dtype=torch.uint8), 224)
    expected = (1 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(constant.amax(dim=(0, 2, 3, 4)), expected)
    torch.testing.assert_close(constant.amin(dim=(0, 2, 3, 4)), expected)


def test_read_back_is_what_pyav_reads(videos):
    path, frames = videos["small"]
    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == frames
    picked = video.read(path, [0, 0, 7, 29], frames)
    np.testing.assert_array_equal(picked, np.stack([decoded[i] for i in (0, 0, 7, 29)]))


def test_videos_that_cannot_be_read(videos, tmp_path):
    path, frames = videos["small"]
    with pytest.raises(video.VideoError, match="holds 30 frames, the manifest says 31"):
        video.read(path, [0], frames + 1)
    with pytest.raises(video.VideoError, match="no such file"):
        video.read(tmp_path / "absent.mp4", [0], 1)
    (tmp_path / "half.mp4").write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(video.VideoError):
        video.read(tmp_path / "half.mp4", [0], frames)
