"""One file, one call: the vector is the workflow's own, whatever is wrong is one line, and nothing is left behind."""

import contextlib
import dataclasses
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
import torch
import yaml
from pydicom.data import get_testdata_file

from echo_embeddings import UserError, embed_file, load_model, write_vectors
from echo_embeddings.collection.folders import find_folders
from echo_embeddings.collection.kinds import DICOM, VIDEO
from echo_embeddings.convert.probe import probe_folder
from echo_embeddings.core import configuration, settings
from echo_embeddings.core.layout import Layout
from echo_embeddings.dicom.header import check_clip, read_header
from echo_embeddings.embed import inference, one_file
from echo_embeddings.embed.reader import Reader
from echo_embeddings.encoders.vjepa import Encoder
from testing import REPOSITORY
from testing.commands import call_command, run_command
from testing.conversion import ConvertPaths, convert_folder, small_frames
from testing.embedding import EmbedPaths, run, write_weights

SIZE = 64
ENTRY = {"constructor": "vit_tiny", "resolution": SIZE, "embed_dim": 192, "batch_size": 4}
# Of the models of these names: one recipe uses all that a row has, the other shows pictures in their own shape.
HEADER = {"sampling": "rate", "rate": 12, "clips_per_video": 2, "mask": "sector", "aspect": "letterboxed"}
RECIPES = {"header": HEADER, "native": {"aspect": "native"}}


def write_directory(top):
    """A working directory with a configuration, weights, and files that are clips or are not."""
    write_weights(top / "tiny.pt")
    os.mkfifo(top / "pipe.mp4")
    entry = ENTRY | {"checkpoint": "tiny.pt", "entry": "encoder"}
    models = {"vitl": entry} | {name: entry | {"recipe": name} for name in RECIPES}
    (top / "models.yaml").write_text(yaml.safe_dump(models))
    config = {
        **{"models_file": "models.yaml", "weights_dir": ".", "recipes": RECIPES},
        **{"embed": {"precision": "fp32"}},
    }
    (top / "config").mkdir()
    for name in ("my.yaml", "config/config.yaml"):
        (top / name).write_text(yaml.safe_dump(config))
    sources = {"clip": "examples_ybr_color.dcm", "still": "US1_UNCR.dcm", "ct": "CT_small.dcm"}
    for name, source in sources.items():
        shutil.copy(get_testdata_file(source), top / f"{name}.dcm")
    content = (top / "clip.dcm").read_bytes()
    (top / "cut.dcm").write_bytes(content[: len(content) // 2])
    (top / "notes.txt").write_text("not a clip " * 20)
    (top / "broken.mp4").write_bytes(b"not a video" * 50)
    for name, codec, shape in (("clip.mp4", "mp4v", (96, 96)), ("clip.avi", "MJPG", (64, 96))):
        write_blobs(top / name, codec, *shape)


def write_blobs(path, codec, height, width):
    """A foreign video, 24 frames at 50 a second: blobs on black that come and go."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 50, (width, height))
    for i in range(24):
        image = np.zeros((height, width, 3), np.uint8)
        cv2.circle(image, (width // 2, height // 2), 14 + i % 9, (40 + 8 * i, 90, 200 - 6 * i), -1)
        writer.write(image)
    writer.release()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    top = tmp_path_factory.mktemp("one")
    write_directory(top)
    return top


@pytest.fixture
def top(made, tmp_path, monkeypatch):
    """The current directory; afterwards no result has been written, and no temporary file is left."""
    monkeypatch.chdir(made)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(made.rglob("*"))
    yield made
    assert set(made.rglob("*")) == before
    assert not list(tmp_path.iterdir())


def workflows(path, name, top):
    """The vector that the workflow makes of the file, below `top`."""
    config = configuration.read(".", "my.yaml")
    model = settings.model(config, configuration.check(config, data=False), name)
    layout = Layout(top / "results")
    source = top / "source/p10" / path.name
    source.parent.mkdir(parents=True)
    shutil.copy(path, source)
    folder = find_folders(str(top / "source"), [], DICOM if path.suffix == ".dcm" else VIDEO)["p10"]
    if path.suffix == ".dcm":
        convert_folder(folder, ConvertPaths(layout), settings.convert_settings(config, SIZE))
        tree = layout.mp4(SIZE, "p10")
    else:
        probe_folder(folder, layout, SIZE, limit=0, workers=1, timeout=600, max_failed_fraction=0)
        tree = source.parent
    # `run` knows the place of one model's results.
    (vector,) = run(EmbedPaths(tree, Path("tiny.pt"), layout), dataclasses.replace(model, name="tiny")).values()
    return vector


def test_a_direct_model_is_fed_with_the_frames_as_they_are(top):
    model = load_model("vitl-direct", device="cpu")
    made = model.embed_one("clip.dcm")
    # The conversion's frames before the codec; the sampled ones have the extremes of the whole clip.
    clip = check_clip("clip.dcm", *read_header("clip.dcm"), ())
    frames = np.stack(list(small_frames(clip, SIZE, Path(tempfile.gettempdir()))))[made.indices[0]]
    expected = model._forward(torch.from_numpy(frames))
    assert (made.vector - expected).norm() / expected.norm() < 1e-6
    assert (made.vector - embed_file("clip.dcm", "vitl", device="cpu")).norm() / expected.norm() > 1e-3  # of the codec
    letterboxed = embed_file("clip.dcm", "header-direct", device="cpu")
    usual = embed_file("clip.dcm", "header", device="cpu")
    assert 0 < (letterboxed - usual).norm() / usual.norm() < 0.1


def test_pictures_in_their_own_shape(top):
    """The DICOM's pixels, and those of a video; the MP4 of a DICOM has another shape and is refused."""
    model = load_model("native-direct", device="cpu")
    made = model.embed_one("clip.dcm")
    frames = get_frames("clip.dcm")[made.indices[0]]
    assert frames.shape[1:] == (240, 320, 3)
    expected = model._forward(torch.from_numpy(frames))
    assert (made.vector - expected).norm() / expected.norm() < 1e-6
    squeezed = embed_file("clip.dcm", "vitl-direct", device="cpu")
    assert (made.vector - squeezed).norm() / squeezed.norm() > 0.02
    native, usual = (embed_file("clip.avi", name, device="cpu") for name in ("native", "vitl"))
    assert (native - usual).norm() / usual.norm() > 0.02
    words = "clip.dcm: model native: recipe native shows pictures in their own shape, and MP4 files are squeezed to a "
    with pytest.raises(UserError, match=f"^{words}square; take native-direct$"):
        embed_file("clip.dcm", "native", device="cpu")


def get_frames(path):
    """The frames as pydicom has them, stretched to 0..255."""
    pixels = pydicom.dcmread(path).pixel_array.astype(np.float32)
    return ((pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("clip.mp4", "clip.mp4: model vitl-direct is fed straight from DICOM, and these are videos; take vitl"),
        ("still.dcm", "still.dcm: no clip: single frame"),
        ("cut.dcm", "cut.dcm: "),
        ("notes.txt", "notes.txt: no clip: not DICOM"),
        ("ct.dcm", "ct.dcm: no clip: modality CT"),
        ("none.dcm", "none.dcm: no such file"),
    ],
)
def test_what_a_direct_model_cannot_embed_is_one_line(top, path, words):
    with pytest.raises(UserError, match=re.escape(words)) as error:
        embed_file(path, "vitl-direct", device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("model", ["vitl", "header"])
@pytest.mark.parametrize("name", ["clip.dcm", "clip.mp4", "clip.avi"])
def test_the_vector_is_the_workflows(top, tmp_path_factory, name, model):
    vector = embed_file(name, model, device="cpu")
    assert (vector.shape, vector.dtype, vector.device.type) == ((192,), torch.float32, "cpu")
    theirs = workflows(top / name, model, tmp_path_factory.mktemp("workflow"))
    assert (vector - theirs).abs().max() < 1e-6


def test_a_list_gives_a_matrix_in_its_order_by_an_encoder_that_is_loaded_once(top, monkeypatch):
    loaded = []
    real = one_file.load_encoder
    monkeypatch.setattr(one_file, "load_encoder", lambda *a: loaded.append(1) or real(*a))
    model = load_model("vitl", device="cpu")
    names = ["clip.mp4", "clip.dcm", Path("clip.mp4")]
    matrix = model.embed(names)
    assert (matrix.shape, matrix.dtype) == ((3, 192), torch.float32)
    assert torch.equal(matrix[0], matrix[2])
    assert torch.equal(matrix[1], model.embed("clip.dcm"))
    assert (matrix[0] - matrix[1]).norm() > 1
    assert model.embed([]).shape == (0, 192)
    assert len(loaded) == 1


def test_what_a_vector_was_made_of_is_told(top):
    made = load_model("header", device="cpu").embed_one("clip.mp4")
    assert (made.frames, made.indices.shape) == (24, (2, 16))
    assert made.indices[0].tolist() == [0, 4, 8, *[11] * 13]  # 12 of 50 a second, in the first of two halves
    assert 0 < made.seconds < 600


def test_a_vector_can_be_trained_with(top):
    vector = embed_file("clip.mp4", "vitl", device="cpu")
    weight = torch.zeros(192, requires_grad=True)
    (weight @ vector).backward()
    assert torch.equal(weight.grad, vector)


def test_the_configuration_decides_and_stays_as_it_was(top):
    config = yaml.safe_load(Path("my.yaml").read_text())
    fewer = config | {"embed": {"precision": "fp32", "num_frames": 8}}
    before = yaml.safe_dump(fewer)
    assert load_model("vitl", config=fewer).model.num_frames == 8
    assert yaml.safe_dump(fewer) == before
    first = embed_file("clip.mp4", "vitl", device="cpu", config="my.yaml")
    assert torch.equal(first, embed_file("clip.mp4", "vitl", device="cpu", config=config))
    assert not torch.equal(first, embed_file("clip.mp4", "vitl", device="cpu", config=fewer))
    elsewhere = config | {"weights_dir": "nowhere"}
    assert torch.equal(first, embed_file("clip.mp4", "vitl", device="cpu", config=elsewhere, checkpoint="tiny.pt"))


# What is wrong with a file, and what is said of it.
WRONG = {
    "still.dcm": "no clip: single frame; a clip is a DICOM of several frames, or a video whose name ends with .mp4, ",
    "ct.dcm": "no clip: modality CT; a clip is ",
    "notes.txt": "no clip: not DICOM; a clip is ",
    "config": "no clip: not a regular file; a clip is ",
    "pipe.mp4": "no clip: not a regular file; a clip is ",
    "cut.dcm": "the file ends within a frame; look at the file, or take a whole copy of it",
    "broken.mp4": "cannot be opened as a video; look at the file, or take a whole copy of it",
    "absent.dcm": "no such file",
    "absent.mp4": "no such file",
}


@pytest.fixture(scope="module")
def model(made):
    with contextlib.chdir(made):
        return load_model("vitl", device="cpu")


@pytest.mark.parametrize("name", WRONG)
def test_a_file_without_a_vector_is_one_line_that_names_it(top, model, name):
    for paths in (name, ["clip.mp4", name, "absent.mp4"]):
        with pytest.raises(UserError) as raised:
            model.embed(paths)
        assert str(raised.value).startswith(f"{name}: {WRONG[name]}")
        assert len(str(raised.value).splitlines()) == 1


def test_a_video_may_have_a_name_that_is_no_key(top, model, tmp_path_factory):
    odd = tmp_path_factory.mktemp("names") / os.fsdecode(b"50%\xff\n.MP4")
    shutil.copy(top / "clip.mp4", odd)
    assert torch.equal(model.embed(odd), model.embed("clip.mp4"))


def test_a_recipe_that_does_not_fit_the_file_is_one_line(top, monkeypatch):
    monkeypatch.setattr("echo_embeddings.convert.sector.MOVES", 1000.0)
    with pytest.raises(UserError, match=r"^clip.mp4: cannot be shown as recipe header asks: no sector found"):
        embed_file("clip.mp4", "header", device="cpu")


def test_what_a_decoder_raises_is_one_line(top, model, monkeypatch):
    monkeypatch.setattr(one_file, "convert_file", lambda *_: 1 / 0)
    with pytest.raises(UserError, match=r"^clip.dcm: cannot be read: ZeroDivisionError: division by zero$"):
        model.embed("clip.dcm")


def test_the_temporary_mp4_goes_when_the_call_is_interrupted(top, model, tmp_path, monkeypatch):
    seen = []

    def interrupt(reader, row):
        seen.extend(path.name for path in tmp_path.rglob("*.mp4"))
        raise KeyboardInterrupt

    monkeypatch.setattr(Reader, "read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.embed("clip.dcm")
    assert seen == ["clip.mp4"]  # and that it is gone is what `top` looks at


def test_a_vector_that_is_not_finite_is_none(top):
    model = load_model("vitl", device="cpu")
    next(model._encoder.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match=r"^clip.mp4: the encoder gave NaN or Inf; "):
        model.embed("clip.mp4")


def test_what_does_not_fit_into_memory_is_one_line(top, model, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    said = r"^model vitl: no room in the memory of cpu: CUDA out of memory.*; take embed.precision: bf16 or another"
    with monkeypatch.context() as patch, pytest.raises(UserError, match=said):
        patch.setattr(inference, "forward", full)
        model.embed("clip.mp4")
    with monkeypatch.context() as patch, pytest.raises(UserError, match=said):
        patch.setattr(Encoder, "to", full)
        load_model("vitl", device="cpu")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "vitll"}, "model 'vitll' is not in models.yaml: header, native, vitl; did you mean 'vitl'?"),
        ({"checkpoint": "absent.pt"}, "model vitl: no checkpoint absent.pt; get it (the registry does not say where"),
        ({"checkpoint": "clip.dcm"}, "model vitl: clip.dcm: not a whole checkpoint file (truncated or of another kind"),
        ({"device": "gpu"}, "device 'gpu': take 'cuda' or 'cpu'"),
        ({"device": "cuda"}, "device 'cuda': torch sees no GPU here; take 'cpu'"),
        ({"config": "absent.yaml"}, "config: "),
        ({"config": {"modles": ["vitl"]}}, "config: unknown key 'modles'; did you mean 'models'?"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_line(top, monkeypatch, options, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError) as raised:
        load_model(**{"name": "vitl"} | options)
    assert str(raised.value).startswith(said)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(("call", "names"), [(run_command, ["clip.dcm"]), (call_command, ["clip.dcm", "clip.avi"])])
def test_the_command_writes_the_vector_and_tells_how_it_was_made(top, tmp_path_factory, model, call, names):
    out = tmp_path_factory.mktemp("out") / "clip.npy"
    files = [top / name for name in names]
    done = call("embed", *files, "--model", "vitl", "--directory", top, "--device", "cpu", "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    expected = model.embed(names if len(names) > 1 else names[0])
    found = np.load(out)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected.numpy()).max() < 1e-6
    lines = done.stdout.splitlines()
    assert lines[0] == "model vitl on cpu, fp32, tiny.pt"
    assert lines[1].startswith("recipe guide, mask none: 16 frames at numpy.linspace(0, n - 1, 16); squeezed; ")
    assert re.fullmatch(
        rf"{re.escape(str(files[0]))}: float32 \[192\], norm \d+\.\d+, in \d+\.\d s, "
        "from frames 0 1 3 5 7 9 11 13 15 17 19 21 23 25 27 29 of 30",
        lines[2],
    )
    assert lines[-1] == f"{out}: float32 {list(expected.shape)}"
    assert len(lines) == len(names) + 3


@pytest.mark.parametrize("name", ["broken.mp4", "cut.dcm", "still.dcm"])
def test_the_command_says_one_line_and_writes_nothing(top, tmp_path_factory, name):
    out = tmp_path_factory.mktemp("out") / "clip.npy"
    done = call_command("embed", top / "clip.mp4", top / name, "--model", "vitl", "--directory", top, "--out", out)
    assert done.returncode == 1
    assert done.stderr.startswith(f"echo-embeddings: {top / name}: {WRONG[name]}")
    assert done.stderr.count("\n") == 1
    assert not out.exists()


def test_a_place_for_the_vectors_that_cannot_be_is_told_before_the_work(top):
    out = top / "tiny.pt/clip.npy"
    done = call_command("embed", top / "clip.mp4", "--model", "vitl", "--directory", top, "--out", out)
    assert (done.returncode, done.stderr) == (1, f"echo-embeddings: {top / 'tiny.pt'}: File exists\n")
    assert "norm" not in done.stdout


def test_a_name_for_the_vector_that_is_no_numpys_is_refused():
    done = call_command("embed", "clip.dcm", "--model", "vitl", "--out", "clip.pt")
    assert done.returncode == 2
    assert done.stderr.endswith("argument --out: 'clip.pt' does not end with .npy\n")


def test_the_page_says_what_works(made, tmp_path):
    """Every block of docs/python.md, as it stands there."""
    directory = shutil.copytree(made, tmp_path / "work", ignore=shutil.ignore_patterns("pipe.mp4"))
    write_vectors(directory / "results/embeddings/vitl_embeddings_all.pt", ["a.mp4", "b.mp4"], torch.ones(2, 192))
    page = (REPOSITORY / "docs/python.md").read_text()
    said, names = io.StringIO(), {}
    with contextlib.chdir(directory), contextlib.redirect_stdout(said):
        for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
            exec(compile(block, "docs/python.md", "exec"), names)
        assert names["vector"].shape == (192,)
        assert (names["matrix"].shape, list(names["vectors"])) == ((2, 192), ["a.mp4", "b.mp4"])
        assert "\nstill.dcm: no clip: single frame; " in said.getvalue()
        (commands,) = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        for command in commands.splitlines():
            done = run_command(*shlex.split(command)[1:])
            assert done.returncode == 0, done.stderr
        assert np.load("vectors.npy").shape == (2, 192)


@pytest.mark.gpu
def test_on_a_gpu_the_vector_is_the_cpus_to_rounding(top):
    model = load_model("vitl")
    assert model.device.type == "cuda"
    vector, expected = model.embed("clip.dcm"), embed_file("clip.dcm", "vitl", device="cpu")
    assert vector.device.type == "cpu"
    assert (vector - expected).norm() / expected.norm() < 1e-4


TERMINATED = """
import os, sys
from echo_embeddings.embed import one_file
from echo_embeddings.tools import cli

number, convert = int(sys.argv.pop(1)), one_file.convert_file

def terminated(*arguments):
    made = convert(*arguments)
    assert arguments[2].is_file()
    os.kill(os.getpid(), number)
    return made

one_file.convert_file = terminated
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_command_that_is_ended_leaves_no_temporary_mp4(top, tmp_path, number):
    arguments = ("embed", top / "clip.dcm", "--model", "vitl", "--directory", top, "--device", "cpu")
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", TERMINATED, str(number.value), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 128 + number, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
