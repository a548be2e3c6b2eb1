"""The demo through the shipped profile, and through copies of it with lines changed for other clusters."""

import contextlib
import re
import shutil

import pytest
import torch
import yaml
from one_node import (
    PATIENCE,
    POLLING,
    PROFILE,
    attempts,
    check_line,
    cluster,
    equal,
    forget_vectors,
    jobs,
    output,
    run,
    running,
    said_of,
    target,
)

from testing import REPOSITORY
from testing.server import File, serving

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures(cluster.__name__)]


def test_the_demo_runs_whole_and_each_job_gets_what_it_asked_for(work):
    shutil.rmtree(work / "results")
    shutil.rmtree(work / ".snakemake")
    result = run(work, change={})
    assert result.returncode == 0, result.stdout
    found = jobs(work)
    assert {job.state for job in found} == {"COMPLETED"}
    # The pages of all models side by side, and the rule all, stay where Snakemake runs.
    assert sorted(job.rule for job in found) == ["convert", "convert", "embed", "embed", "merge", "qc_model"]
    for job in found:
        gpu = job.rule == "embed"
        assert job.partition == ("mit_preemptable" if gpu else "mit_normal")
        assert job.gres == ("gpu:l40s:1" if gpu else None)
    cards = []
    for log in sorted((work / "results/logs/embed/vit-tiny").glob("p1?.log")):
        number, card = first_line(log)
        assert number in {job.number for job in found if job.rule == "embed"}
        cards.append(card)
    # Submitted together, they ran side by side, each on a card of its own.
    assert sorted(cards) == ["0", "1"]
    for log in work.glob("results/logs/convert/*/*.log"):
        assert "CUDA_VISIBLE_DEVICES" not in log.read_text()
    assert len(torch.load(work / "results/embeddings/vit-tiny_embeddings_all.pt")) == 8
    assert (work / "results/qc/index.html").is_file()


def first_line(log):
    """The SLURM job and the cards that the job saw, as the first line of its log has them."""
    return re.fullmatch(
        r".*, SLURM job (\d+)(?:, CUDA_VISIBLE_DEVICES=(.*))?", log.read_text().splitlines()[0]
    ).groups()


@pytest.fixture
def server(finished):
    """It has the checkpoint of the second model."""
    with serving() as server:
        server.files["/w.pt"] = File((finished / "weights/vit-tiny.pt").read_bytes())
        yield server


def test_a_second_model_is_fetched_on_the_head_node_and_uses_the_mp4_trees_again(work, server):
    registry = yaml.safe_load((REPOSITORY / "config/demo-models.yaml").read_text())
    registry["second"] = {**registry["vit-tiny"], "checkpoint": "second.pt", "url": f"{server.url}/w.pt"}
    (work.parent / "two.yaml").write_text(yaml.safe_dump(registry))
    files = [*(work / "results/mp4").rglob("*.*"), *(work / "results/embeddings").glob("vit-tiny*")]
    before = {path: path.stat().st_mtime_ns for path in files if path.is_file()}
    merged = "results/embeddings/second_embeddings_all.pt"
    result = run(work, "--", merged, change={"models_file": "../two.yaml"})
    assert result.returncode == 0, result.stdout
    started = re.findall(r"^(?:local)?rule (\w+):", result.stdout, re.MULTILINE)
    assert started == ["download_weights_second", "embed", "embed", "merge"]
    assert "download_weights_second" not in {job.rule for job in jobs(work)}
    assert len(server.requests) == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before
    first, second = (
        torch.load(work / f"results/embeddings/{name}_embeddings_all.pt") for name in ("vit-tiny", "second")
    )
    assert equal(first, second)  # it has the same weights


def another(finished, directory):
    """A copy of the finished demo without its vectors."""
    shutil.copytree(finished.parent / "config", directory / "config")
    copy = shutil.copytree(finished, directory / "demo")
    forget_vectors(copy)
    return copy


# Lines of the profile that docs/slurm.md's table "your cluster -> which line" names: old -> new.
GRES = {"    gpu: 1 ": "#   gpu: 1 ", "    gpu_model: l40s": "#   gpu_model: l40s", "#   gpu: 0 ": "    gpu: 0 "}
GRES |= {"#   gres:": "    gres:", "#   runtime: 720": "    runtime: 720"}
GRES |= {"# - slurm_account=NAME": "  - slurm_account=lab", "# slurm-status-command": "slurm-status-command"}
NO_GPU = {"    slurm_partition: mit_preemptable": "    slurm_partition: mit_normal", "    gpu: 1 ": "    gpu: 0 "}
NO_GPU |= {"    gpu_model: l40s\n": "", "# set-threads:": "set-threads:", "#   convert: 16": "  embed: 3"}
NO_GPU |= {"  - mem_mb=8000": "  - slurm_extra='--nice=7'\n  - mem_mb=8000"}


def changed_profile(directory, change):
    """A copy of the profile with some lines changed, as docs/slurm.md says."""
    text = (REPOSITORY / "profiles/slurm/config.yaml").read_text()
    for old, new in change.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (directory / "slurm").mkdir()
    (directory / "slurm/config.yaml").write_text(text)
    return ("--profile", str(directory / "slurm"), *POLLING)


def test_another_cluster_takes_other_lines_of_the_profile(finished, tmp_path):
    places = {name: tmp_path / name for name in ("gres", "no_gpu", "broken", "no_partition")}
    works = {name: another(finished, place) for name, place in places.items()}
    for path in (works["broken"] / "results/mp4/256/p11").rglob("*.mp4"):
        path.write_bytes(b"not a video")
    profiles = {
        "gres": changed_profile(places["gres"], GRES),
        "no_gpu": changed_profile(places["no_gpu"], NO_GPU),
        "broken": (*PROFILE, *POLLING),
        "no_partition": changed_profile(places["no_partition"], {"mit_preemptable": "nosuch"}),
    }
    with contextlib.ExitStack() as stack:
        runs = {
            name: stack.enter_context(running(work, "--", target("p11"), profile=profiles[name], change={}))
            for name, work in works.items()
        }
        codes = {name: run.wait(PATIENCE) for name, run in runs.items()}
    assert codes == {"gres": 0, "no_gpu": 0, "broken": 1, "no_partition": 1}, output(works["gres"])

    (gres,) = attempts(works["gres"], "p11")
    assert (gres.partition, gres.gres, gres.minutes, gres.account) == ("mit_preemptable", "gpu:l40s:1", 720, "lab")
    assert first_line(works["gres"] / "results/logs/embed/vit-tiny/p11.log")[1] in ("0", "1")  # one card

    (no_gpu,) = attempts(works["no_gpu"], "p11")
    assert (no_gpu.partition, no_gpu.gres, no_gpu.cores, no_gpu.nice) == ("mit_normal", None, 3, 7)
    assert first_line(works["no_gpu"] / "results/logs/embed/vit-tiny/p11.log")[1] is None

    found = attempts(works["broken"], "p11")
    assert [job.state for job in found] == ["FAILED"] * 3  # retries: 2
    assert [job.minutes for job in found] == [found[0].minutes * attempt for attempt in (1, 2, 3)]
    assert [job.mb for job in found] == [found[0].mb * attempt for attempt in (1, 2, 3)]
    for job, line in zip(found, said_of(works["broken"], "p11"), strict=True):
        check_line(works["broken"], line, job, r"p11: 4 of 4 clips have no vector, more than .* allows; .*")
    assert "Traceback" not in output(works["broken"])

    lines = said_of(works["no_partition"], "p11")
    assert len(lines) == 3
    assert lines[0].startswith("embed vit-tiny p11: SLURM takes no such job: sbatch: error: invalid partition")
