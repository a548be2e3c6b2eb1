"""MP4 files that are masked when they are made: what they show, and that nothing else is ever left among them."""

import dataclasses
import json
import re
import shutil

import cv2
import numpy as np
import pydicom
import pytest
import torch
import yaml
from pydicom import uid
from pydicom.dataset import Dataset

from echo_embeddings.collection.units import Folder
from echo_embeddings.convert import folder as job
from echo_embeddings.convert import pictures, video
from echo_embeddings.convert.folder import convert_file
from echo_embeddings.convert.sector import NoSectorError, sector
from echo_embeddings.core import configuration, manifest, settings
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.layout import Layout, masked
from echo_embeddings.embed.one_file import load_model
from testing import REPOSITORY, phantoms
from testing.commands import call_command, pending, run_demo
from testing.conversion import SETTINGS, ConvertPaths, convert_folder
from testing.corpus import CINE
from testing.dicoms import cine, save
from testing.embedding import write_weights
from testing.processes import small_disk, start_python, until
from testing.sectors import clip_of, judge
from testing.units import collection_of, write_clips

SECTOR = dataclasses.replace(SETTINGS, mask="sector")
REGIONS = dataclasses.replace(SETTINGS, mask="regions")
HALF = dataclasses.replace(SETTINGS, mask="boxes:0,0.5,1,1")
TOP = dataclasses.replace(SETTINGS, mask="boxes:0,0,1,0.5")
BLOCK = 16  # pixels of a codec's macroblock, within which it may smear the edge of a mask


def written(path, frames, *boxes):
    """A DICOM of these frames whose regions of tissue are `boxes`."""
    regions = []
    for x0, y0, x1, y1 in boxes:
        one = Dataset()
        one.RegionDataType, one.RegionSpatialFormat = 1, 1
        one.RegionLocationMinX0, one.RegionLocationMinY0 = x0, y0
        one.RegionLocationMaxX1, one.RegionLocationMaxY1 = x1, y1
        regions.append(one)
    more = {"SequenceOfUltrasoundRegions": regions} if regions else {}
    return save(path, cine(frames, "RGB", **more), uid.ExplicitVRLittleEndian)


def shown(path, row):
    """All frames of an MP4, uint8 [n, size, size, 3]."""
    return video.read(path, range(row.frames), row.frames)


def outside(frames, keep, within=0):
    """The brightest that is left beyond `within` pixels from a mask."""
    near = cv2.dilate(keep.astype(np.uint8), np.ones((2 * within + 1,) * 2, np.uint8)).astype(bool)
    return int(frames[:, ~near].max())


def moving(count=12, shape=(96, 128)):
    rng = np.random.default_rng(3)
    return rng.integers(0, 255, (count, *shape, 3)).astype(np.uint8)


EVERY = [("mpeg4", name) for name in (*phantoms.LAYOUTS, "large", "small")]


@pytest.mark.parametrize(("codec", "name"), [*EVERY, ("libx264", "phased")])
def test_the_mp4_shows_the_sector_and_black(tmp_path, name, codec):
    """By movement alone, in the pixels that come out of the file."""
    _, picture = clip_of(name)
    source, target = written(tmp_path / "a.dcm", picture.frames), tmp_path / "a.mp4"
    config = configuration.defaults()
    config["convert"] |= {"mask": "sector", "codec": codec}
    row = convert_file(str(source), "a.dcm", target, settings.convert_settings(config, 256))
    assert (row.status, row.reason, row.mask) == ("converted", "", "motion")
    frames = shown(target, row)
    plain = convert_file(str(source), "a.dcm", tmp_path / "plain.mp4", settings.convert_settings(
        settings.unmasked(config), 256))  # fmt: skip
    before = shown(tmp_path / "plain.mp4", plain)
    keep = sector_of(picture)
    kept, gone = judge(keep, picture)
    assert kept >= 0.99
    assert gone >= 0.95
    assert row.mask_kept == pytest.approx(keep.mean(), abs=1e-5)
    assert outside(before, keep, BLOCK) > 100  # there was something to hide
    assert outside(frames, keep, BLOCK) <= 2
    assert outside(frames, keep, 1) <= 48  # what the codec smears within a block
    # Inside it is the picture that it was, stretch included, but for the edge.
    inner = cv2.erode(keep.astype(np.uint8), np.ones((2 * BLOCK + 1,) * 2, np.uint8)).astype(bool)
    assert np.abs(frames[:, inner].astype(int) - before[:, inner]).mean() < 2


def sector_of(picture):
    """What the conversion is to find: the sector in frames that were resized and stretched, and not encoded."""
    low, high = int(picture.frames.min()), int(picture.frames.max())
    places = np.linspace(0, len(picture.frames) - 1, min(24, len(picture.frames))).astype(int)
    small = np.stack([cv2.resize(picture.frames[i], (256, 256), interpolation=cv2.INTER_AREA) for i in places])
    stretched = (small.astype(np.float32) - np.float32(low)) / np.float32(high - low) * np.float32(255)
    return sector(stretched.astype(np.uint8), noisy=True)


@pytest.mark.parametrize(("name", "noise"), [("phased", 2), ("phased", 6), ("two planes", 4), ("large", 1)])
def test_noise_everywhere_is_no_movement(name, noise):
    """An analog picture: before a codec has smoothed it, a mask would else leave all of it."""
    _, picture = clip_of(name)
    rng = np.random.default_rng(0)
    places = np.linspace(0, len(picture.frames) - 1, 24).astype(int)
    frames = picture.frames[places] + noise * rng.standard_normal(picture.frames[places].shape, np.float32)
    noisy = phantoms.Picture(np.clip(frames, 0, 255).astype(np.uint8), picture.sector, picture.text)
    kept, gone = judge(sector_of(noisy), noisy)
    assert kept >= 0.99
    assert gone >= 0.95


def test_regions_of_the_header(tmp_path):
    frames = moving()
    source = written(tmp_path / "a.dcm", frames, (8, 12, 55, 83), (72, 12, 119, 83))
    expected = np.zeros((256, 256), bool)
    for x0, x1 in ((8, 56), (72, 120)):
        expected[32:224, 2 * x0 : 2 * x1] = True
    for made in (REGIONS, SECTOR):
        row = convert_file(str(source), "a.dcm", tmp_path / "a.mp4", made)
        assert (row.status, row.mask, row.mask_kept) == ("converted", "regions", pytest.approx(expected.mean()))
        found = shown(tmp_path / "a.mp4", row)
        assert outside(found, expected, BLOCK) <= 2
        assert found[:, expected].mean() > 80


@pytest.mark.parametrize(
    ("made", "boxes", "still", "reason"),
    [
        (REGIONS, [], False, "no sector found: the header has no region of tissue that lies inside the picture"),
        (REGIONS, [(8, 12, 55, 83), (8, 12, 200, 83)], False, "no sector found: the header has no region of tissue"),
        (SECTOR, [], True, "no sector found: nothing moves"),
        (SECTOR, [], False, "no sector found: all of the picture moves"),
    ],
)
def test_without_a_sector_nothing_is_written(tmp_path, made, boxes, still, reason):
    frames = np.repeat(moving(1), 12, axis=0) if still else moving()
    source, target = written(tmp_path / "a.dcm", frames, *boxes), tmp_path / "tree/a.mp4"
    for fallback, status in (("fail", "failed"), ("skip", "skipped")):
        row = convert_file(str(source), "a.dcm", target, dataclasses.replace(made, mask_fallback=fallback))
        assert (row.status, row.mask) == (status, None)
        assert row.reason.startswith(reason)
        assert list(target.parent.iterdir()) == []


def test_boxes_are_what_stays(tmp_path):
    source = written(tmp_path / "a.dcm", moving())
    row = convert_file(str(source), "a.dcm", tmp_path / "a.mp4", HALF)
    found = shown(tmp_path / "a.mp4", row)
    assert (row.mask, row.mask_kept) == ("boxes", 0.5)
    assert found[:, : 128 - BLOCK].max() <= 2
    assert found[:, 128:].mean() > 80


# --- a folder: killed, limited and switched ----------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dicom").mkdir()
    for i in range(6):
        shutil.copy(CINE["small"], tmp_path / f"dicom/{i:03d}.dcm")
    return Folder("p10", str(tmp_path / "dicom"))


def paths_of(top):
    return ConvertPaths(Layout(top), size=masked(SETTINGS.size))


def halves(paths):
    """Which half each MP4 of the tree shows: `top`, `low`, or both."""
    found = {}
    for path in sorted(paths.tree.rglob("*.mp4")):
        frame = video.read(path, [3], 30)[0]
        top, low = frame[: 128 - BLOCK].max() > 2, frame[128 + BLOCK :].max() > 2
        found[path.stem] = {(True, False): "top", (False, True): "low"}.get((top, low), "both")
    return found


def test_a_tree_of_its_own_and_another_mask(folder, tmp_path):
    """On, off, on again with another mask, limited: only files under the mask of now are in the masked tree."""
    paths = paths_of(tmp_path / "results")
    rows = convert_folder(folder, paths, HALF)
    assert paths.tree == tmp_path / "results/masked/256/p10"
    assert paths.table == tmp_path / "results/masked/256/p10.manifest.tsv"
    assert {row.mask for row in rows.values()} == {"boxes"}
    assert set(halves(paths).values()) == {"low"}
    assert not (tmp_path / "results/mp4").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in paths.tree.iterdir()}
    convert_folder(folder, ConvertPaths(Layout(tmp_path / "results")))
    assert len(list((tmp_path / "results/mp4/256/p10").iterdir())) == 6
    convert_folder(folder, paths, HALF)
    assert {path.name: path.stat().st_mtime_ns for path in paths.tree.iterdir()} == kept  # nothing is made twice
    convert_folder(folder, paths, HALF, limit=2)
    assert len(halves(paths)) == 6  # under the same mask they may stay
    convert_folder(folder, paths, TOP, limit=2)
    assert halves(paths) == {"000": "top", "001": "top"}
    (paths.tree / "004.mp4").write_bytes((tmp_path / "results/mp4/256/p10/004.mp4").read_bytes())  # by hand
    convert_folder(folder, paths, TOP, limit=3)
    assert halves(paths) == {"000": "top", "001": "top", "002": "top"}


def test_what_cannot_be_masked_now_leaves_the_tree(folder, tmp_path):
    """A file that could be masked before stays under no other mask."""
    paths = paths_of(tmp_path / "results")
    convert_folder(folder, paths, HALF)
    for fallback, status in (("skip", "skipped"), ("fail", "failed")):
        made = dataclasses.replace(REGIONS, mask_fallback=fallback)
        rows = convert_folder(folder, paths, made)  # the small cine's regions are those of the large one
        assert {row.status for row in rows.values()} == {status}
        assert halves(paths) == {}


def test_units_of_one_tree(tmp_path):
    """A job deletes of its own unit alone, and keeps what is away."""
    names = [f"p{i}/s{i}/a.dcm" for i in range(8)]
    write_clips(tmp_path / "dicom", names)
    units = collection_of(dicom_dir=str(tmp_path / "dicom"), units=2).units()
    layout = Layout(tmp_path / "results")
    tree = layout.mp4(masked(32))
    half, top = (dataclasses.replace(made, size=32) for made in (HALF, TOP))

    def masks():
        times = {path.relative_to(tree).as_posix(): path.stat().st_mtime_ns for path in tree.rglob("*.mp4")}
        found = {name: video.read(tree / name, [0], 2)[0] for name in times}
        return {name: "top" if frame[:8].max() > 9 else "low" for name, frame in found.items()}

    def convert(unit, made):
        unit_options = {"limit": 0, "workers": 1, "timeout": 60, "max_failed_fraction": 1.0}
        job.convert_folder(units[unit], layout, made, **unit_options)

    convert("u000", half)
    convert("u001", half)
    assert masks() == {f"p{i}/s{i}/a.mp4": "low" for i in range(8)}
    own = [name for name in names if units["u000"].has(name.replace(".dcm", ".mp4"))]
    assert 0 < len(own) < 8
    shutil.move(tmp_path / "dicom" / own[0].split("/")[0], tmp_path / "away")
    convert("u000", half)
    assert len(masks()) == 8
    convert("u000", top)
    others = {name.replace(".dcm", ".mp4"): "low" for name in names if name not in own}
    assert masks() == others | {name.replace(".dcm", ".mp4"): "top" for name in own[1:]}


def test_one_file_is_masked_as_the_folder(tmp_path, monkeypatch):
    """The vector of a DICOM by a configuration with a mask is that of its masked MP4."""
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "tiny.pt")
    entry = {"constructor": "vit_tiny", "resolution": 64, "embed_dim": 192, "batch_size": 4}
    (tmp_path / "models.yaml").write_text(
        yaml.safe_dump({"tiny": entry | {"checkpoint": "tiny.pt", "entry": "encoder"}})
    )
    config = {"models_file": "models.yaml", "models": ["tiny"], "weights_dir": ".", "embed": {"precision": "fp32"}}
    plain = load_model("tiny", device="cpu", config=config)
    half = load_model("tiny", device="cpu", config=config | {"convert": {"mask": {"boxes": [[0, 0.5, 1, 1]]}}})
    convert_file(CINE["small"], "a.dcm", tmp_path / "a.mp4", dataclasses.replace(HALF, size=64))
    expected = plain.embed(tmp_path / "a.mp4")
    assert torch.allclose(half.embed(CINE["small"]), expected, atol=1e-6)
    assert not torch.allclose(plain.embed(CINE["small"]), expected, atol=1e-3)


@pytest.mark.parametrize("after", [1, 3])
def test_killed_under_another_mask(folder, tmp_path, after):
    paths = paths_of(tmp_path / "results")
    convert_folder(folder, paths, HALF)
    process = start_python("-m", "testing.conversion", folder.path, tmp_path / "results", TOP.mask)
    journal = paths.state / "rows.jsonl"
    until(lambda: journal.read_text().count(TOP.fingerprint()) >= after, process)
    process.kill()
    process.wait()
    assert set(halves(paths).values()) <= {"top"}
    assert len(halves(paths)) >= after
    rows = convert_folder(folder, paths, TOP)
    assert {row.status for row in rows.values()} == {"converted"}
    assert set(halves(paths).values()) == {"top"}
    assert [path.name for path in paths.tree.iterdir() if path.suffix != ".mp4"] == []


def test_frames_that_wait_are_no_part_of_the_tree(tmp_path, monkeypatch):
    """They are not masked yet: they wait where jobs remember things, and the memory limit holds."""
    monkeypatch.setattr(pictures, "WAITING_MEMORY", 2**16)
    target, state = tmp_path / "tree/a.mp4", tmp_path / "state"
    with small_disk(tmp_path / "tree", "400k"):
        state.mkdir()
        row = convert_file(CINE["small"], "a.dcm", target, SECTOR, scratch=state)
        assert (row.status, row.mask, row.frames) == ("converted", "motion", 30)  # which take 6 MB as they wait
        assert list(state.iterdir()) == []
    monkeypatch.undo()
    again = convert_file(CINE["small"], "a.dcm", tmp_path / "b.mp4", SECTOR)
    assert again.mp4_blake2b == row.mp4_blake2b


# --- settings, vectors and runs ----------------------------------------------------------------------------


def model_of(**convert):
    config = configuration.defaults()
    config["convert"] |= convert
    config["recipes"] = {"mine": {"mask": "sector"}}
    registry = configuration.check(config, data=False)
    registry["vitl"] |= {"recipe": "mine"}
    return settings.model(config, registry, "vitl"), settings.model(config, registry, "vitl-direct")


def test_vectors_know_the_mask_and_no_recipe_masks_twice():
    plain, direct = model_of()
    assert (plain.recipe.mask, plain.clips, plain.mp4_mask) == ("sector", 256, "none")
    prints = {plain.fingerprint()}
    for mask in ("sector", "regions"):
        model, straight = model_of(mask=mask)
        assert (model.recipe.mask, model.clips, model.mp4_mask) == ("none", "masked/256", mask)
        assert straight == direct  # which is fed with no MP4, and masks as its recipe says
        prints.add(model.fingerprint())
    boxed, _ = model_of(mask={"boxes": [[0, 0.1, 1, 1.0]]})
    assert (boxed.recipe.mask, boxed.mp4_mask) == ("sector", "boxes:0,0.1,1,1")
    assert len(prints | {boxed.fingerprint()}) == 4


def test_the_fallback_alone_converts_nothing_again():
    assert dataclasses.replace(SECTOR, mask_fallback="skip").fingerprint() == SECTOR.fingerprint()
    assert len({made.fingerprint() for made in (SETTINGS, SECTOR, REGIONS, HALF, TOP)}) == 5


def test_nothing_has_no_sector():
    with pytest.raises(NoSectorError):
        sector(np.zeros((4, 64, 64, 3), np.uint8), noisy=True)


def test_a_run_with_a_mask_and_back(work):
    """The demo: masked MP4s of their own, vectors that say so, and nothing of before is made again."""
    vectors = "results/embeddings/vit-tiny_embeddings_p10.pt"
    before = {path: path.stat().st_mtime_ns for path in (work / "results/mp4").rglob("*.mp4")}
    change = "convert: {mask: {boxes: [[0.2, 0.2, 0.8, 0.8]]}}"
    assert "convert_masked 256 p10" in pending(work, change=change)
    done = run_demo(work, "--", vectors, change=change)
    assert done.returncode == 0, done.stdout
    rows = manifest.read(work / "results/masked/256/p10.manifest.tsv")
    assert {row.mask for row in rows if row.status == "converted"} == {"boxes"}
    for row in rows:
        if row.status == "converted":
            frames = shown(work / "results/masked/256/p10" / row.mp4, row)
            assert frames[:, :30].max() <= 2
            assert frames[:, 60:190, 60:190].max() > 100
    record = json.loads((work / vectors).with_suffix(".json").read_text())
    assert record["mp4_mask"] == "boxes:0.2,0.2,0.8,0.8"
    assert record["preprocessing"].startswith("MP4 masked when it was made (boxes:0.2,0.2,0.8,0.8): ")
    assert record["counts"]["reused"] == 0
    assert "convert_masked 256 p10" not in pending(work, "--", vectors, change=change)
    assert {path: path.stat().st_mtime_ns for path in (work / "results/mp4").rglob("*.mp4")} == before
    (work / "change.yaml").write_text(change)
    files = ("--directory", work, "--configfile", REPOSITORY / "config/demo.yaml", work / "change.yaml")
    next((work / "results/masked").rglob("*.mp4")).write_bytes(b"")
    said = call_command("scrub", *files).stdout
    assert "p10 at masked/256: 4 videos: 3 as made, 1 damaged" in said
    assert "--forcerun convert_masked makes it again" in said
    status = call_command("status", *files).stdout
    assert "masked/256" in status
    done = run_demo(work, "--", vectors)
    assert done.returncode == 0, done.stdout
    record = json.loads((work / vectors).with_suffix(".json").read_text())
    assert record["counts"]["reused"] == record["counts"]["embedded"]
    assert {path: path.stat().st_mtime_ns for path in (work / "results/mp4").rglob("*.mp4")} == before


IDENTIFYING = {
    "PatientName": "Doe^Jane", "PatientID": "P4711", "PatientBirthDate": "19520307",
    "AccessionNumber": "ACC99017", "StudyInstanceUID": "1.2.840.99.1", "SeriesInstanceUID": "1.2.840.99.2",
    "SOPInstanceUID": "1.2.840.99.3", "StudyDate": "20110504", "StudyTime": "101112", "ContentDate": "20110505",
    "AcquisitionDateTime": "20110506101213", "DeviceSerialNumber": "SN31337", "StationName": "ECHOROOM7",
    "InstitutionName": "Saint Elsewhere", "InstitutionAddress": "Mill Lane 9", "ReferringPhysicianName": "Ref^Doc",
    "PerformingPhysicianName": "Perf^Doc", "OperatorsName": "Op^Sono", "SoftwareVersions": "SW-8.8",
    "ProtocolName": "ProtoX", "StudyDescription": "Echo of Jane", "StudyID": "ST5150",
}  # fmt: skip


@pytest.mark.parametrize("made", [SETTINGS, HALF])
def test_what_identifies_is_in_no_manifest(tmp_path, made):
    """Nor in an MP4; of the header is there what docs/privacy.md lists."""
    (tmp_path / "dicom").mkdir()
    told = {"Manufacturer": "Maker", "ManufacturerModelName": "Model 9", "HeartRate": 61, "FrameTime": "33"}
    save(tmp_path / "dicom/a.dcm", cine(moving(), "RGB", **IDENTIFYING, **told), uid.ExplicitVRLittleEndian)
    rows = convert_folder(Folder("p10", str(tmp_path / "dicom")), ConvertPaths(Layout(tmp_path / "results")), made)
    assert rows["a.dcm"].manufacturer_model_name == "Model 9"
    table = Layout(tmp_path / "results").manifest(made.clips, "p10")
    mp4 = next(table.parent.rglob("*.mp4"))
    for content in (table.read_bytes(), mp4.read_bytes()):
        assert not [value for value in IDENTIFYING.values() if value.encode() in content]


def test_what_identifies_is_in_no_result_of_a_run(finished):
    """Of a whole run nothing holds UIDs, dates, versions or serial numbers of the headers: neither what is shared, nor
    what jobs remember. Names of files say the patient and the study there, as in MIMIC-IV-Echo."""
    values = set()
    for path in (finished / "dicom").rglob("*.dcm"):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        for element in dataset:
            kinds = {"PN", "LO", "SH", "UI", "DA", "DT"}
            if element.VR in kinds and element.keyword not in ("SOPClassUID", "Manufacturer", "ManufacturerModelName"):
                values |= {str(value) for value in np.atleast_1d(element.value)}
    values = {value for value in values if len(value) >= 8 and value not in path_parts(finished / "dicom")}
    assert len(values) >= 10
    pattern = re.compile(rb"(?<!\d)(?:" + b"|".join(re.escape(value.encode()) for value in values) + rb")(?!\d)")
    files = [path for path in (finished / "results").rglob("*") if path.is_file()]
    assert {".html", ".json", ".mp4", ".pt", ".tsv", ".log", ".jsonl"} <= {path.suffix for path in files}
    assert {path: found[0] for path in files if (found := pattern.search(path.read_bytes()))} == {}


def path_parts(top):
    """Numbers that paths of the collection hold."""
    return {number for path in top.rglob("*") for number in re.findall(r"\d+", path.name)}


def test_the_privacy_page_names_tests_that_are_there():
    """In every row of its table, and each by file and name."""
    page = (REPOSITORY / "docs/privacy.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert all(line.count(" | ") == 3 for line in rows)
    for file, name in re.findall(r"`(test_\w+\.py)::(\w+)`", page):
        assert f"def {name}(" in (REPOSITORY / "tests" / file).read_text(), f"{file}::{name}"


@pytest.mark.parametrize(
    ("mask", "line"),
    [
        ("sectors", "config: convert.mask: 'sectors' does not match '^(none|sector|regions)$': What MP4 files keep"),
        ({"box": [[0, 0, 1, 1]]}, "config: convert.mask: 'box' is not one of ['boxes']"),
        ({"boxes": []}, "config: convert.mask.boxes: [] should be non-empty"),
        ({"boxes": [[0, 0, 1]]}, "config: convert.mask.boxes.0: [0, 0, 1] is too short"),
        ({"boxes": [[0, 0, 640, 480]]}, "config: convert.mask.boxes.0.2: 640 is greater than the maximum of 1"),
        (
            {"boxes": [[0.5, 0, 0.5, 1]]},
            "config: convert.mask.boxes.0: [left, top, right, bottom] must have left < right",
        ),
    ],
)
def test_a_mask_that_is_none_is_a_line(mask, line):
    with pytest.raises(UserError) as error:
        model_of(mask=mask)
    assert str(error.value).startswith(line)


def test_videos_are_not_masked(tmp_path):
    config = configuration.defaults() | {"mp4_dir": str(tmp_path)}
    config["convert"]["mask"] = "sector"
    with pytest.raises(UserError, match=r"^config: convert\.mask: mp4_dir holds videos, which stay as they are"):
        configuration.check(config)
