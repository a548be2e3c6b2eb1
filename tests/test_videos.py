"""Collections of videos in other containers than MP4, of any shape: what is read of them, and how they are listed."""

import dataclasses
import json
import subprocess

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch

from echo_embeddings.collection.folders import find_folders
from echo_embeddings.collection.kinds import VIDEO
from echo_embeddings.convert import probe, video
from echo_embeddings.core import corrections, manifest
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.manifest import CONVERTED, Row
from echo_embeddings.core.recipe import GUIDE, RECIPES
from echo_embeddings.embed import masks, preprocessing, run_record, sampling
from echo_embeddings.embed.folder import corrected
from echo_embeddings.encoders import checkpoint
from testing.embedding import MODEL, EmbedPaths, run

FFMPEG = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-y"]
FRAMES, FPS = 37, 50

FORMS = {
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "3"),
    "raw.AVI": ("-c:v", "rawvideo", "-pix_fmt", "bgr24"),
    "h264.mov": ("-c:v", "libx264", "-pix_fmt", "yuv420p"),
    "h264.mkv": ("-c:v", "libx264", "-pix_fmt", "yuv420p"),
    "ffv1.mkv": ("-c:v", "ffv1", "-pix_fmt", "yuv420p"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p"),
    "stream.webm": ("-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-live", "1"),  # without a number of frames
}


def make(path, *options, size="112x112", frames=FRAMES, filters="null", rate=FPS):
    """A video in which everything moves."""
    source = f"testsrc2=size={size}:rate={rate},trim=end_frame={frames},{filters}"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [*FFMPEG, "-f", "lavfi", "-i", source, "-fps_mode", "passthrough", *options, str(path)]
    subprocess.run(command, check=True)
    return path


def decoded(path, height, width):
    """All frames as the ffmpeg program decodes them."""
    command = [*FFMPEG, "-i", str(path), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


def probed(tmp_path, name="videos", **changes):
    """The rows of the folder `name` of videos, by path."""
    folder = find_folders(str(tmp_path / "theirs"), [], VIDEO)[name]
    layout = Layout(tmp_path / "results")
    options = {"limit": 0, "workers": 1, "timeout": 600, "max_failed_fraction": 0} | changes
    probe.probe_folder(folder, layout, 64, **options)
    return {row.path: row for row in manifest.read(layout.manifest(64, name))}


@pytest.mark.parametrize("name", FORMS)
def test_frames_are_those_that_ffmpeg_decodes(tmp_path, name):
    path = make(tmp_path / name, *FORMS[name], size="160x112")
    row = probe.probe_file(str(tmp_path), name)
    assert (row.status, row.mp4, row.frames, row.rows, row.columns, row.fps) == (CONVERTED, name, FRAMES, 112, 160, FPS)
    frames = video.read(path, range(row.frames), row.frames, row.mp4_blake2b)
    assert np.array_equal(frames, decoded(path, 112, 160))
    if name != "stream.webm":
        assert video.read_fast(path, range(FRAMES), FRAMES) is not None, "as fast as an MP4"


@pytest.mark.parametrize("stated", [20, 50])
def test_an_avi_that_states_a_wrong_number_of_frames_is_read_to_its_end(tmp_path, stated):
    path = make(tmp_path / "clip.avi", *FORMS["mjpeg.avi"])
    content = path.read_bytes()
    right, wrong = (number.to_bytes(4, "little") for number in (FRAMES, stated))
    at = content.index(b"strh") + 8 + 32  # dwLength of the stream; that of the file is in avih
    assert content[at : at + 4] == right
    path.write_bytes(content[:at] + wrong + content[at + 4 :])
    assert video.facts(path)[0] == stated
    row = probe.probe_file(str(tmp_path), "clip.avi")
    assert (row.status, row.frames) == (CONVERTED, FRAMES)
    frames = video.read(path, range(FRAMES), FRAMES)
    assert np.array_equal(frames, decoded(path, 112, 112))


@pytest.mark.parametrize("name", ["h264.mkv", "vp9.webm", "h264.mov"])
def test_a_rate_that_varies(tmp_path, name):
    """Matroska states no number of frames: OpenCV guesses 109."""
    slower = f"setpts='if(lt(N,20),N*0.1/TB,(2+(N-20)/{FPS})/TB)'"
    path = make(tmp_path / name, *FORMS[name], filters=slower)
    row = probe.probe_file(str(tmp_path), name)
    assert (row.status, row.frames) == (CONVERTED, FRAMES)
    assert np.array_equal(video.read(path, range(FRAMES), FRAMES), decoded(path, 112, 112))


@pytest.mark.parametrize("name", ["mjpeg.avi", "h264.mkv", "vp9.webm", "h264.mov"])
def test_half_a_file_has_failed(tmp_path, name):
    content = make(tmp_path / name, *FORMS[name]).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    row = probe.probe_file(str(tmp_path), name)
    assert (row.status, row.mp4) == ("failed", ""), row


def test_what_is_listed_and_what_is_left_out(tmp_path, capsys):
    top = tmp_path / "theirs/videos"
    for name in ("a/0X1C.avi", "a/0X1C.mkv", "b.WebM"):
        make(top / name, size="64x64", frames=8)
    for name in ("a/._0X1C.avi", "FileList.csv", "picture.png", "0X1C_avi"):
        (top / name).write_text("no video")
    (top / "clip.mpg").write_bytes((top / "a/0X1C.avi").read_bytes())
    rows = probed(tmp_path)
    assert {row.mp4 for row in rows.values() if row.status == CONVERTED} == {"a/0X1C.avi", "a/0X1C.mkv", "b.WebM"}
    others = {path: (row.status, row.reason) for path, row in rows.items() if row.status != CONVERTED}
    left_out = ("a/._0X1C.avi", "FileList.csv", "picture.png", "0X1C_avi", "clip.mpg")
    assert others == dict.fromkeys(left_out, ("skipped", "not a video by its name"))
    said = capsys.readouterr().out
    assert "videos: skipped: 5 x not a video by its name" in said
    assert "videos: 3 clips of 8 files" in said


# --- shapes -----------------------------------------------------------------------------------------

LOSSLESS = ("-c:v", "ffv1", "-pix_fmt", "bgr0")
ECHOJEPA = dataclasses.replace(MODEL, recipe=RECIPES["echojepa"])
LETTERBOXED = dataclasses.replace(MODEL, recipe=dataclasses.replace(GUIDE, name="letterboxed", aspect="letterboxed"))


@pytest.fixture
def shapes(tmp_path, tiny_weights):
    """Videos of three shapes, and their manifest, to be embedded."""
    top = tmp_path / "theirs/p10"
    for name, size in {"square.avi": "112x112", "tall.mkv": "90x120", "wide.avi": "160x112"}.items():
        make(top / name, *LOSSLESS, size=size, frames=20)
    probed(tmp_path, "p10")
    return EmbedPaths(top, tiny_weights, Layout(tmp_path / "results"))


def by_hand(paths, clips):
    """The vectors of uint8 [16, height, width, 3] each, as they are."""
    encoder = checkpoint.load(paths.checkpoint, MODEL)
    with torch.inference_mode():
        return [encoder(preprocessing.preprocess(torch.from_numpy(clip)[None], 64)).mean(dim=1)[0] for clip in clips]


@pytest.mark.parametrize("model", [MODEL, LETTERBOXED], ids=["squeezed", "letterboxed"])
def test_a_video_is_shown_as_a_dicom_of_its_shape_is(shapes, model):
    """Squeezed by area averaging, as `convert` does it, and letterboxed from that; a square one stays as it is."""
    vectors = run(shapes, model)
    wanted = np.linspace(0, 19, 16, dtype=int)
    shown = [decoded(shapes.tree / "square.avi", 112, 112)[wanted]]
    for name, height, width in (("tall.mkv", 120, 90), ("wide.avi", 112, 160)):
        frames = decoded(shapes.tree / name, height, width)[wanted]
        small = np.stack([cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA) for frame in frames])
        shown.append(masks.letterbox(small, height, width) if model is LETTERBOXED else small)
    for vector, expected in zip(vectors.values(), by_hand(shapes, shown), strict=True):
        assert torch.equal(vector, expected)
    record = json.loads(shapes.run.read_text())
    assert record["read"] == {"112 x 112": 1, "120 x 90": 1, "112 x 160": 1}
    assert f"; {model.recipe.aspect}; " in record["preprocessing"]


def test_a_record_names_a_few_sizes():
    rows = [Row(f"{i}.avi", f"{i}.avi", CONVERTED, "", 20, rows=10 + min(i, 30), columns=20) for i in range(50)]
    sizes = run_record.sizes([*rows, Row("x.dcm", "x.mp4", CONVERTED, "", 20, rows=480, columns=640)], MODEL)
    assert (sizes["40 x 20"], sizes["others"], sum(sizes.values()), len(sizes)) == (20, 22, 51, 11)
    assert run_record.sizes([Row("x.dcm", "x.mp4", CONVERTED, "", 20, rows=480, columns=640)], MODEL) == {"64 x 64": 1}


def test_vectors_of_videos_that_are_not_square_are_made_again_once_and_no_others(shapes, capsys, monkeypatch):
    converted = Row("s/x.dcm", "s/x.mp4", CONVERTED, "", 20, 480, 640, transfer_syntax="1.2.840.10008.1.2.4.50")
    (shapes.tree / "s").mkdir()
    make(shapes.tree / "s/x.mp4", "-c:v", "mpeg4", size="64x64", frames=20)
    manifest.write(shapes.table, [*manifest.read(shapes.table), converted])
    with monkeypatch.context() as patch:  # as 0.1.0 made them: cut to a square
        patch.setattr(corrections, "EMBED", tuple(one for one in corrections.EMBED if one.name != "not-square"))
        patch.setattr(masks, "squeeze", lambda frames, _: frames)
        before = run(shapes)
    capsys.readouterr()
    after = run(shapes)
    assert "4 clips, 2 to do" in capsys.readouterr().out
    assert {key for key in before if not torch.equal(before[key], after[key])} == {"tall.mkv", "wide.avi"}
    run(shapes)
    assert "4 clips, 0 to do" in capsys.readouterr().out
    ends = {row.mp4: corrected(shapes.tree, row, MODEL).partition("+")[2] for row in manifest.read(shapes.table)}
    squeezed = "0.2.0-not-square"
    assert ends == {"square.avi": "0.2.0-not-antialiased", "s/x.mp4": "", "tall.mkv": squeezed, "wide.avi": squeezed}


# --- rates ------------------------------------------------------------------------------------------


@pytest.fixture
def rated(tmp_path, tiny_weights):
    """Videos of several rates and of none, one that was converted, and their manifest, to be embedded."""
    top = tmp_path / "theirs/p10"
    for rate in (15, 25, 50):
        make(top / f"{rate}.avi", *LOSSLESS, size="64x64", frames=150, rate=rate)
    make(top / "none.avi", *LOSSLESS, size="64x64", frames=150)
    probed(tmp_path, "p10")
    make(top / "s/x.mp4", "-c:v", "mpeg4", size="64x64", frames=150)
    paths = EmbedPaths(top, tiny_weights, Layout(tmp_path / "results"))
    rows = [
        dataclasses.replace(row, fps=None) if row.mp4 == "none.avi" else row
        for row in manifest.read(paths.table)
        if not row.mp4.startswith("s/")
    ]
    converted = Row("s/x.dcm", "s/x.mp4", CONVERTED, "", 150, 480, 640, fps=50.0, transfer_syntax="1.2.3")
    manifest.write(paths.table, [*rows, converted])
    return paths


def test_echojepa_steps_by_the_rate_of_a_video_and_its_record_says_so(rated):
    vectors = run(rated, ECHOJEPA)
    rows = {row.mp4: row for row in manifest.read(rated.table)}
    assert {key: row.fps for key, row in rows.items()} == {
        **{"15.avi": 15, "25.avi": 25, "50.avi": 50, "none.avi": None, "s/x.mp4": 50}
    }
    steps = {"15.avi": 1, "25.avi": 3, "50.avi": 6, "none.avi": 3, "s/x.mp4": 3}
    for key, step in steps.items():
        wanted = np.minimum(np.linspace(0, 16 * step, 16), 16 * step - 1).astype(int)
        frames = (
            decoded(rated.tree / key, 64, 64)[wanted]
            if key != "s/x.mp4"
            else video.read(rated.tree / key, wanted.tolist(), 150)
        )
        (expected,) = by_hand(rated, [frames * masks.boxes(64, 64)[None, :, :, None]])
        assert torch.equal(vectors[key], expected), key
    row = rows["15.avi"]  # should its rate be read otherwise one day, other frames are shown
    kept_under = {corrected(rated.tree, dataclasses.replace(row, fps=fps), ECHOJEPA) for fps in (8, 15, 50)}
    assert len(kept_under) == 2
    record = json.loads(rated.run.read_text())
    assert record["rates"] == {"15": 1, "25": 1, "50": 1, "30": 1, "30, assumed: none is stated": 1}
    run(rated)
    assert json.loads(rated.run.read_text())["rates"] == {}  # the guide's frames have nothing to do with it


def test_vectors_of_videos_of_another_rate_are_made_again_once_and_no_others(rated, capsys, monkeypatch):
    with monkeypatch.context() as patch:  # as 0.1.0 made them
        patch.setattr(corrections, "EMBED", tuple(one for one in corrections.EMBED if one.name != "echojepa-rate"))
        patch.setattr(sampling, "rate_of", lambda row, recipe: 30)
        before = run(rated, ECHOJEPA)
        run(rated)
    capsys.readouterr()
    after = run(rated, ECHOJEPA)
    assert "5 clips, 2 to do" in capsys.readouterr().out
    assert {key for key in before if not torch.equal(before[key], after[key])} == {"15.avi", "50.avi"}
    run(rated, ECHOJEPA)
    run(rated)  # the guide's
    assert capsys.readouterr().out.count("5 clips, 0 to do") == 2
