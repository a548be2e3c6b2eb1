"""The configurations of docs/collections.md, on small collections of the layouts that the page describes."""

import re
import subprocess

import imageio_ffmpeg
import pandas as pd
import pytest
import torch
import yaml

from echo_embeddings.collection.folders import find_folders
from echo_embeddings.collection.kinds import VIDEO
from echo_embeddings.collection.source import Collection
from echo_embeddings.convert import probe
from echo_embeddings.core import configuration, manifest, settings
from echo_embeddings.core.errors import UserError
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.manifest import CONVERTED
from echo_embeddings.core.vectors import merge_vectors, write_vectors
from echo_embeddings.evaluate import tasks
from echo_embeddings.tables import export, join, selection
from echo_embeddings.tools import collection_checks, demo
from testing import REPOSITORY
from testing.commands import run_snakemake

PAGE = (REPOSITORY / "docs/collections.md").read_text()
DYNAMIC = ["0X100009310A3BD7FC", "0X1002E8FBACD08477", "0X1005D03EED19C65B"]
PEDIATRIC = {"A4C": ["CR32a7555-CR32a7582-000039", "shared"], "PSAX": ["CR32a7555-CR32a7582-000042", "shared"]}


def video(path, seed):
    """An AVI as EchoNet's are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = f"testsrc2=size=112x112:rate=50,trim=end_frame=20,hue=h={40 * seed}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", source]
    subprocess.run([*command, "-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p", path], check=True)


def write_dynamic(top):
    lines = ["FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"]
    for i, name in enumerate(DYNAMIC):
        video(top / f"Videos/{name}.avi", i)
        lines.append(f"{name},{50.5 + i},30.1,60.2,112,112,50,20,{'VAL' if i == 2 else 'TRAIN'}")
    (top / "FileList.csv").write_text("\n".join([*lines, "0XANNOUNCED,55,30,60,112,112,50,20,TEST", ""]))
    (top / "VolumeTracings.csv").write_text("FileName,X1,Y1,X2,Y2,Frame\n")


def write_pediatric(top):
    for view, names in PEDIATRIC.items():
        lines = ["FileName,EF,Sex,Age,Weight,Height,Split"]
        for i, name in enumerate(names):
            video(top / f"{view}/Videos/{name}.avi", i + len(view))
            lines.append(f"{name}.avi,{60.5 + i + 10 * (view == 'PSAX')},F,{i},20,,{i}")
        (top / f"{view}/FileList.csv").write_text("\n".join([*lines, ""]))
        (top / f"{view}/VolumeTracings.csv").write_text("FileName,X,Y,Frame\n")


def write_camus(top):
    for name in ("half_sequence", "half_sequence_gt", "ED", "ES"):
        path = top / f"database_nifti/patient0001/patient0001_2CH_{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x1f\x8b" + bytes(100))


WRITE = {"EchoNet-Dynamic": write_dynamic, "EchoNet-Pediatric": write_pediatric, "CAMUS": write_camus}


def blocks(heading, language, top):
    """The blocks of a language below a heading of the page, of the collection in `top`."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return [block.replace(f"/data/{heading}", str(top)) for block in found]


@pytest.fixture
def there(tmp_path, monkeypatch):
    """Writes a collection, and goes where a run of it works; returns the page's configurations of it."""

    def write(heading):
        WRITE[heading](tmp_path / heading)
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        for script in blocks(heading, "python", tmp_path / heading):
            exec(compile(script, "docs/collections.md", "exec"), {})
        return blocks(heading, "yaml", tmp_path / heading)

    return write


def joined(text):
    """What a run of the configuration would know of each file, and the keys of the clips that it would embed."""
    config = yaml.safe_load(text)
    configuration.check(config)
    tables = settings.tables(config)
    selection.check(tables, config["export"]["columns"], config["study"]["where"])
    manifests = {}
    for name, folder in Collection.of(config).units().items():
        probe.probe_folder(folder, Layout(), 64, limit=0, workers=1, timeout=60, max_failed_fraction=0)
        manifests[name] = Layout().manifest(64, name)
    frame, _ = join.join_tables(join.files_table(manifests), tables)
    return frame[frame["status"] == CONVERTED], join.wanted_keys(manifests, tables)[0]


def test_echonet_dynamic(there):
    text, evaluated = there("EchoNet-Dynamic")
    frame, _ = joined(text)
    assert frame["folder"].unique().tolist() == ["Videos"]
    assert frame["file_path"].tolist() == [f"{name}.avi" for name in DYNAMIC]
    assert frame["EF"].tolist() == [50.5, 51.5, 52.5]
    assert frame[["rows", "columns", "frames", "fps"]].drop_duplicates().to_numpy().tolist() == [[112, 112, 20, 50]]
    sample = collection_checks.sample_videos(list(find_folders(yaml.safe_load(text)["mp4_dir"], [], VIDEO).values()))
    assert (sample.files, sample.clips, sample.frames, sample.syntaxes) == (3, 3, 20, {".avi": 3})
    (train,) = re.findall(r"""`(select: "Split == 'TRAIN'")`""", PAGE)
    _, wanted = joined(f"{text}\n{train}\n")
    assert wanted == {"Videos": {f"{name}.avi" for name in DYNAMIC[:2]}}
    both = f"{text}\n{evaluated}"
    frame, _ = joined(both)
    assert frame["subject_id"].tolist() == DYNAMIC
    config = yaml.safe_load(both)
    configuration.check(config)
    found, _ = join.look_up(tasks.tasks(config)["ef"].table, frame, settings.tables(config))
    assert found["EF"].tolist() == [50.5, 51.5, 52.5]
    assert found["Split"].tolist() == ["TRAIN", "TRAIN", "VAL"]


def test_echonet_pediatric(there):
    both, one = there("EchoNet-Pediatric")
    frame, _ = joined(both)
    expected = {f"{view} Videos/{name}.avi": view for view, names in PEDIATRIC.items() for name in names}
    assert dict(zip(frame["folder"] + " " + frame["file_path"], frame["View"], strict=True)) == expected
    assert frame["EF"].tolist() == [60.5, 61.5, 70.5, 71.5]
    frame, _ = joined(one)
    assert frame["EF"].tolist() == [60.5, 61.5]


def test_camus_is_no_collection_of_videos(there, tmp_path):
    assert there("CAMUS") == []
    with pytest.raises(UserError, match=r"config: mp4_dir: no video below .* \(looked for names that end with "):
        find_folders(str(tmp_path / "CAMUS"), [], VIDEO)


KEYS = {
    "EchoNet-Dynamic": {f"{name}.avi" for name in DYNAMIC},
    "EchoNet-Pediatric": {f"{view}/Videos/{name}.avi" for view, names in PEDIATRIC.items() for name in names},
}


@pytest.mark.parametrize("heading", list(KEYS))
def test_a_run_is_planned_and_drawn_vectors_are_merged_and_exported_with_labels(there, tmp_path, heading):
    """As a whole run does, but for the encoder and the pages."""
    text, *_ = there(heading)
    (tmp_path / "theirs.yaml").write_text(text)
    planned = run_snakemake(tmp_path / "work", "--configfile", str(tmp_path / "theirs.yaml"), "-n", "all", "export")
    assert planned.returncode == 0, planned.stdout
    assert {"probe", "embed", "merge", "export_parquet"} <= set(re.findall(r"rule (\w+):", planned.stdout))
    joined(text)
    config = yaml.safe_load(text)
    configuration.check(config)
    layout = Layout()
    folders = list(find_folders(config["mp4_dir"], config["folders"], VIDEO))
    parts = export.parts(layout, "vitl", "64", folders)
    for part in parts.values():
        keys = [row.mp4 for row in manifest.read(part.manifest) if row.mp4]
        write_vectors(part.vectors, keys, torch.randn(len(keys), 4))
    vectors = {folder: part.vectors for folder, part in parts.items()}
    merge_vectors(vectors, layout.merged("vitl"), 4, config["merge"]["prefix_folder"])
    assert torch.load(layout.merged("vitl")).keys() == KEYS[heading]
    shards = [layout.parquet("vitl") / f"{i}.parquet" for i in range(len(parts))]
    export.write_shards(parts, shards, settings.tables(config), config["export"]["columns"], 4, export.Merging())
    table = pd.concat(map(pd.read_parquet, shards))
    assert len(table) == len(KEYS[heading])
    assert table["EF"].notna().all()


@pytest.mark.slow
@pytest.mark.parametrize("heading", list(KEYS))
def test_a_whole_run(there, tmp_path, heading):
    """From the page's configuration to vectors, pages and exported labels; only the model is the demo's."""
    text, *_ = there(heading)
    work = tmp_path / "work"
    demo.write_weights(work / "weights/vit-tiny.pt", "vit_tiny", "encoder", 0)
    (tmp_path / "theirs.yaml").write_text(text)
    (tmp_path / "tiny.yaml").write_text(
        f"models: [vit-tiny]\nmodels_file: {REPOSITORY}/config/demo-models.yaml\nweights_dir: weights\n"
        "embed: {device: cpu, num_workers: 1, precision: fp32}\n"
    )
    files = [str(tmp_path / name) for name in ("theirs.yaml", "tiny.yaml")]
    done = run_snakemake(work, "--configfile", *files, "--cores", "2", "all", "export")
    assert done.returncode == 0, done.stdout
    keys = KEYS[heading]
    assert torch.load(work / "results/embeddings/vit-tiny_embeddings_all.pt").keys() == keys
    table = pd.concat(map(pd.read_parquet, sorted((work / "results/parquet/vit-tiny").glob("*.parquet"))))
    assert len(table) == len(keys)
    assert table["EF"].notna().all()
    assert (work / "results/qc/vit-tiny.html").exists()
