"""`echo-embeddings doctor`: what it says of a machine and a collection that are fine, and of each thing that is not."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from echo_embeddings.collection.folders import find_folders
from echo_embeddings.core import configuration
from echo_embeddings.tools import collection_checks, doctor, estimate, machine
from testing import REPOSITORY
from testing.commands import call_command, run_command, run_snakemake
from testing.units import collection_of, write_clips


def ask(directory, change=None, environment=None):
    """What it prints for the demo, with `change` laid over its configuration; with an `environment`, as a process."""
    files = [str(REPOSITORY / "config/demo.yaml")]
    if change:
        path = directory.parent / f"change-{os.getpid()}.yaml"  # pytest's processes share the finished demo
        path.write_text(yaml.safe_dump(change))
        files.append(str(path))
    command = ("doctor", "--directory", directory, "--configfile", *files)
    done = run_command(*command, environment=environment) if environment else call_command(*command)
    assert done.stderr == ""
    assert done.returncode == (not done.stdout.endswith("ready to run\n"))
    return done.stdout


def lines(said, level):
    return [line for line in said.splitlines() if line.startswith(level)]


def test_a_demo_that_is_in_order(finished):
    said = ask(finished)
    assert lines(said, "red") == []
    assert said.endswith("ready to run\n")
    assert re.search(r"green  locks +keep two jobs from one folder below .*/results", said)
    assert re.search(r"weights +vit-tiny: weights/vit-tiny.pt fits vit_tiny", said)
    assert re.search(r"DICOM +2 folders, 11 files, about 0.0 GB and 9 clips of \d+ frames", said)
    assert re.search(r"no clips +of 11 looked at: single frame 2", said)
    assert re.search(r"convert 256 +0.0 +0.0\n  embed vit-tiny +0.0 +0.0", said)


def test_a_directory_that_is_not_there_is_one_line(tmp_path):
    for command in ("doctor", "models", "status"):
        done = call_command(command, "--directory", tmp_path / "no")
        said = f"echo-embeddings: --directory: there is no directory '{tmp_path}/no'\n"
        assert (done.returncode, done.stderr) == (1, said)


def test_files_that_cannot_be_read_are_told_before_a_run(finished, tmp_path):
    work = tmp_path / "work"
    for name in ("dicom", "weights"):
        shutil.copytree(finished / name, work / name)
    for name in ("one.dcm", "two.dcm"):
        (work / "dicom/p10" / name).touch()
    change = {"models_file": str(REPOSITORY / "config/demo-models.yaml")}
    said = ask(work, change | {"convert": {"max_failed_fraction": 0.1}})
    (red,) = lines(said, "red")
    assert "2 of 11 clips looked at cannot be read: more than 10% of a folder" in red
    assert "broken files" not in ask(work, change | {"convert": {"max_failed_fraction": 0.2}})


def test_everything_that_is_wrong_at_once_each_with_what_to_do(finished, tmp_path):
    registry = yaml.safe_load((REPOSITORY / "config/demo-models.yaml").read_text())
    registry["absent"] = registry["vit-tiny"] | {"checkpoint": "nowhere.pt", "url": "https://example.org/nowhere.pt"}
    registry["other"] = registry["vit-tiny"] | {"constructor": "vit_large", "embed_dim": 1024}
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(registry))
    work = tmp_path / "work"
    for name in ("dicom", "weights"):
        shutil.copytree(finished / name, work / name)
    wrong = {"models_file": str(tmp_path / "models.yaml"), "models": ["vit-tiny", "absent", "other"]}
    wrong["convert"] = {"encoder_options": {"no_such_option": 1}, "modalities": ["XA"]}
    said = ask(work, wrong)
    reds = "\n".join(lines(said, "red"))
    assert "ffmpeg does not take codec, quality and options" in reds
    assert "absent: no weights/nowhere.pt" in said
    assert "-> nothing: a run fetches https://example.org/nowhere.pt; or set weights_dir" in said
    assert "embedding dimension 192, vit_large has 1024; constructor: vit_tiny fits" in said
    assert "none of 11 looked at is a clip" in said
    assert said.endswith("3 problems\n")


def test_the_disk_against_the_record_list(finished, tmp_path):
    paths = [str(path.relative_to(finished / "dicom")) for path in sorted((finished / "dicom").rglob("*.dcm"))]
    listed = [f"files/{path}" for path in [*paths[1:], "p10/p10000009/s90000009/90000009_0001.dcm"]]
    (tmp_path / "list.csv").write_text("\n".join(["dicom_filepath", *listed]))
    said = ask(finished, {"record_list": str(tmp_path / "list.csv")})
    counts = f"{len(listed)} files listed: 1 of them are not on the disk, 1 there are not listed"
    assert re.search(rf"amber  record list +{counts}", said)
    said = ask(finished, {"record_list": str(tmp_path / "list.csv"), "require_complete": True})
    assert re.search(rf"red    record list +{counts}", said)


def test_many_folders_and_one_that_holds_nearly_all_are_better_divided(tmp_path, monkeypatch):
    write_clips(tmp_path, ["p10/1", "p10/2", "p10/3", "p11/1"])

    def said(**keys):
        return [(one.level, one.says, one.fix) for one in collection_checks.division(collection_of(**keys))]

    keys = {"dicom_dir": str(tmp_path)}
    assert said(**keys) == []
    monkeypatch.setattr(collection_checks, "MANY_FOLDERS", 1)
    ((level, says, fix),) = said(**keys)
    assert (level, says) == (
        machine.AMBER,
        "2 folders are as many jobs of each stage, each of which takes 12 s to start",
    )
    assert fix.startswith("units: 16 ")
    assert said(**keys, units=16) == []
    monkeypatch.setattr(collection_checks, "MANY_FOLDERS", 2)
    monkeypatch.setattr(collection_checks, "FILES_OF_A_JOB", 3)
    monkeypatch.setattr(collection_checks, "NEARLY_ALL", 0.7)
    ((level, says, _),) = said(**keys)
    assert (level, says) == (machine.AMBER, "p10 holds 3 of 4 files, which one job converts and one card embeds")
    ((level, says, fix),) = said(**keys, units=4)  # of files below one directory
    assert (level, says) == (machine.AMBER, "u003 holds 3 of 4 files, which one job converts and one card embeds")
    assert fix.startswith("set layout, or the directory one level deeper")
    assert said(**keys, units=1) == []
    assert [estimate.units(files) for files in (10, 525_328, 10**9)] == [16, 64, 256]


def test_archives_are_looked_into(tmp_path):
    write_clips(tmp_path, ["p10/1", "p10/more/1", "p11/one/1"])
    for name in ("p10/more", "p11/one"):
        shutil.make_archive(str(tmp_path / name), "zip", tmp_path / name)
        shutil.rmtree(tmp_path / name)
    units = collection_of(dicom_dir=str(tmp_path)).units()
    found = list(collection_checks.archives(list(units.values())))
    assert [(one.level, Path(one.says.partition(": ")[0]).name) for one in found] == [
        (machine.AMBER, "more.zip"), (machine.RED, "one.zip"),
    ]  # fmt: skip
    assert all(one.fix.startswith("unpack it: unzip ") for one in found)


def test_the_layout_against_the_paths(finished):
    said = ask(finished, {"layout": "*/{patient}/{study}/*.dcm"})
    assert re.search(r"green  layout +\*/\{patient\}/\{study\}/\*.dcm says the patient of 11 of 11 files", said)
    said = ask(finished, {"layout": "ward-*/{patient}/*"})
    assert re.search(r"amber  layout +.* says the patient of 0 of 11 files: fewer than half", said)
    assert re.search(r"correct it; a path is like 'p11/p11000001/s90000005/90000005_0002'", said)


def test_the_tables_against_the_files(finished, tmp_path):
    paths = [str(path.relative_to(finished / "dicom")) for path in sorted((finished / "dicom").rglob("*.dcm"))]
    views = tmp_path / "views.csv"
    change = {"tables": [{"file": str(views), "by": "path", "key": "video"}], "select": "view == 'A4C'"}
    for rows, level in ((6, "green"), (5, "amber")):
        views.write_text("video,view\n" + "".join(f"{path},A4C\n" for path in paths[:rows]))
        assert re.search(rf"{level} +tables +.*for {rows} of 11 files", ask(finished, change))
    views.write_text("video,view\nabc.avi,A4C\n")
    (red,) = lines(ask(finished, change), "red")
    assert f"config: tables.0: {views}: none of its 1 keys is that of a file: it has 'abc.avi', the files are" in red
    said = ask(finished, change | {"select": None})  # nothing is lost but a column of the exports
    assert re.search(r"amber  tables +tables.0 \(views.csv\) has a row for 0 of 11 files: fewer than half", said)
    (red,) = lines(ask(finished, change | {"select": "veiw == 'A4C'"}), "red")
    assert "config: select: no column 'veiw'; did you mean 'view'?" in red
    views.unlink()
    assert re.search(r"red +tables +tables.0: no file '.*views.csv' in", ask(finished, change))
    assert re.search(r"amber +tables +tables.0: no file '.*views.csv' in", ask(finished, change | {"select": None}))


def test_a_wrong_configuration_is_all_its_lines(finished):
    said = ask(finished, {"models": ["vitz"], "limit": -1})
    assert len(lines(said, "red")) == 2
    assert "config: limit: -1 is less than the minimum of 0" in said
    assert "config: models.0: 'vitz' is not in" in said
    assert said.endswith("2 problems\n")


def test_keys_that_two_folders_share_are_told_before_hours_are_spent(finished, tmp_path):
    clip = finished / "dicom/p11/p11000001/s90000004/90000004_0003.dcm"
    still = finished / "dicom/p11/p11000001/s90000005/90000005_0002.dcm"
    for folder in ("first", "second"):
        (tmp_path / "dicom" / folder).mkdir(parents=True)
        shutil.copy(still, tmp_path / "dicom" / folder / "A_STILL")  # gets no vector
        shutil.copy(clip, tmp_path / "dicom" / folder / f"{folder}.dcm")
    change = {"dicom_dir": str(tmp_path / "dicom")}
    assert lines(ask(finished, change), "red") == []
    for folder in ("first", "second"):
        shutil.copy(clip, tmp_path / "dicom" / folder / "IM_0001")
    said = ask(finished, change)
    assert "folders first and second share the key 'IM_0001.mp4': their files cannot be merged" in said
    assert "-> merge: {prefix_folder: true}" in said
    assert lines(ask(finished, change | {"merge": {"prefix_folder": True}}), "red") == []


def test_a_directory_deep_in_a_folder_that_cannot_be_listed_is_one_line(tmp_path, collection_dir, monkeypatch):
    shutil.copytree(collection_dir / "p10", tmp_path / "dicom" / "p10")
    (tmp_path / "dicom/p10/zclosed").mkdir()
    scandir = os.scandir

    def refusing(path):
        # Permissions do not hold root back.
        if str(path).endswith("zclosed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    config = configuration.defaults() | {"dicom_dir": str(tmp_path / "dicom")}
    config["embed"]["device"] = "cpu"
    reds = [one for one in doctor.examine(config) if isinstance(one, machine.Finding) and one.level == machine.RED]
    assert [one.what for one in reds] == ["DICOM"]
    assert "p10/zclosed: Permission denied; make it readable" in reds[0].says
    assert reds[0].fix == ""  # nothing but what the line says


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there(finished, tmp_path):
    # `sbatch` must not be found: on a cluster's login node a missing GPU is no fault.
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    said = ask(finished, {"embed": {"device": "cuda"}}, environment)
    assert re.search(r"red +GPU +torch sees none: ", said)
    assert "-> embed: {device: cpu}, or repair the driver" in said


@pytest.fixture
def cluster_says(tmp_path, monkeypatch):
    """Puts a SLURM into PATH that names these partitions, or for None does not answer."""

    def write(partitions):
        silent = "echo 'slurm_load_partitions: Unable to contact' >&2; exit 1"
        answer = f"printf '{partitions}'" if partitions else silent
        for name in ("sbatch", "sinfo"):
            (tmp_path / name).write_text(f"#!/bin/sh\n{answer}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return write


@pytest.mark.parametrize(
    ("partitions", "said"),
    [
        (
            "mit_normal\nmit_preemptable",
            "green  has the profile's partitions: mit_normal, mit_preemptable",
        ),
        (
            "short\nmit_normal",
            "amber  profiles/slurm names mit_preemptable; there are mit_normal, short",
        ),
        (None, "amber  sinfo does not answer: slurm_load_partitions: Unable to contact"),
    ],
)
def test_partitions_of_a_cluster(cluster_says, partitions, said):
    cluster_says(partitions)
    (found,) = machine.cluster()
    assert f"{found.level}  {found.says}".startswith(said)


def test_the_profile_is_the_working_directorys_then_the_clones(cluster_says, tmp_path, monkeypatch):
    cluster_says("mine\nmit_normal")
    monkeypatch.chdir(tmp_path)
    (found,) = machine.cluster()
    assert found.says.startswith("profiles/slurm names mit_preemptable; ")
    monkeypatch.setattr(machine, "repository", lambda: None)
    (found,) = machine.cluster()
    assert (found.level, found.says) == (machine.AMBER, f"no {tmp_path}/profiles/slurm/config.yaml")
    (tmp_path / "profiles/slurm").mkdir(parents=True)
    (tmp_path / "profiles/slurm/config.yaml").write_text("default-resources: [slurm_partition=mine]\n")
    (found,) = machine.cluster()
    assert (found.level, found.says) == (machine.GREEN, "has the profile's partitions: mine")


def test_what_is_wrong_with_the_profile_of_a_run_is_red(cluster_says, tmp_path, monkeypatch):
    profile = tmp_path / "config.yaml"
    profile.write_text("executor: slurm\ndefault-resources: {slurm_partition: theirs}\n")
    cluster_says("mine")
    (found,) = machine.cluster(profile)
    assert (found.level, found.says) == (machine.RED, f"{profile} names theirs; there are mine")
    cluster_says(None)
    (found,) = machine.cluster(profile)
    assert found.level == machine.RED
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    (found,) = machine.cluster(profile)
    assert (found.level, found.says) == (machine.RED, f"there is no sbatch, and {profile} gives the jobs to it")
    profile.write_text("cores: 2\n")
    (found,) = machine.cluster(profile)
    assert found.level == machine.GREEN


def test_the_configuration_that_a_profile_names(finished, tmp_path):
    """As Snakemake takes it: beside the profile, and not besides --configfile."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/my.yaml").write_text(f"dicom_dir: {finished}/nowhere\n")
    (tmp_path / "mine/config.yaml").write_text("cores: 1\nconfigfile: my.yaml\n")
    profile = tmp_path / "mine/config.v9+.yaml"
    shutil.copy(tmp_path / "mine/config.yaml", profile)
    (tmp_path / "mine/config.yaml").write_text("cores: 1\n")
    said = call_command("doctor", "--directory", finished, "--profile", tmp_path / "mine").stdout
    assert f"config: dicom_dir: no directory '{finished}/nowhere' in" in said
    planned = run_snakemake(finished, "-n", "--profile", str(tmp_path / "mine"))
    assert f"config: dicom_dir: no directory '{finished}/nowhere' in" in planned.stdout
    demo = REPOSITORY / "config/demo.yaml"
    done = call_command("doctor", "--directory", finished, "--profile", tmp_path / "mine", "--configfile", demo)
    assert done.stdout.endswith("ready to run\n")
    profile.write_text(f"cores: 1\nconfigfile: [{demo}]\n")
    assert "\nvit-tiny " in call_command("models", "--directory", finished, "--profile", profile).stdout
    done = call_command("doctor", "--profile", tmp_path)
    assert done.stderr.startswith(f"echo-embeddings: --profile: '{tmp_path}' in ")


def test_credentials_are_found_and_not_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PHYSIONET_USERNAME", raising=False)
    assert machine.credentials().says == "none for PhysioNet; needed only to fetch from there"
    (tmp_path / ".netrc").write_text("machine physionet.org login someone password geheim\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert machine.credentials().says == "for PhysioNet in ~/.netrc"
    monkeypatch.setenv("PHYSIONET_USERNAME", "someone")
    monkeypatch.setenv("PHYSIONET_PASSWORD", "geheim")
    found = machine.credentials()
    assert found.says == "for PhysioNet in the environment"
    assert "geheim" not in str(found)


def test_packages_other_than_the_pins(monkeypatch):
    real = machine.importlib.metadata.version
    monkeypatch.setattr(
        machine.importlib.metadata, "version", lambda name: "2.11.0+cu126" if name == "torch" else real(name)
    )
    _, packages = machine.software()
    assert packages.level == machine.AMBER
    assert "torch 2.11.0 (pinned: " in packages.says
    monkeypatch.setattr(machine, "repository", lambda: None)
    _, packages = machine.software()
    assert packages.says.startswith("all ")  # an installation asks for no more than pyproject.toml does
    assert packages.says.endswith(" as required")
    monkeypatch.setattr(machine.importlib.metadata, "version", lambda name: "1.9" if name == "torch" else real(name))
    _, packages = machine.software()
    assert packages.says == "tested with others: torch 1.9 (required: >=2.10)"


def test_the_sample_spreads_over_folders_and_scales_up(tmp_path, collection_dir, monkeypatch):
    monkeypatch.setattr(collection_checks, "SAMPLE", 20)
    for i in range(12):
        shutil.copytree(collection_dir / "p10", tmp_path / "big" / f"q{i}")
    shutil.copytree(collection_dir / "p11", tmp_path / "p11")
    folders = list(find_folders(str(tmp_path), []).values())
    found = collection_checks.sample_dicom(folders, ("US",))
    total = sum(len(folder.files()) for folder in folders)
    assert (found.files, found.looked_at) == (total, sum(found.outcomes.values()))
    assert found.looked_at < total
    assert found.looked_at <= collection_checks.SAMPLE
    config = configuration.defaults()
    config["embed"]["device"] = "cpu"
    cost = doctor.costs(config, configuration.check(config, data=False), found, len(folders))
    assert [one.stage for one in cost] == ["convert 256", "embed vitl"]
    assert all(one.hours > 0 and one.gigabytes > 0 for one in cost)
    assert doctor.disk(cost, ".").level == machine.GREEN
    assert doctor.disk([doctor.Cost("convert 256", 1, 1e9)], ".").level == machine.RED
