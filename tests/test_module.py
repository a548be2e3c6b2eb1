"""The workflow as others take it: a module that Snakemake fetches, and the package installed without a clone."""

import importlib.metadata
import re
import shutil
import subprocess
import sys

import pytest
import torch
import yaml

import echo_embeddings
from testing import REPOSITORY
from testing.commands import SNAKEMAKE, environment, fork

VERSION = echo_embeddings.__version__
# What `snakedeploy deploy-workflow https://github.com/owner/echo-embeddings . --tag v...` writes (snakedeploy 0.17).
DEPLOYED = """
from snakemake.utils import min_version


min_version("6.10.0")


configfile: "config/config.yaml"


# declare https://github.com/owner/echo-embeddings as a module
module echo_embeddings:
    snakefile:
        github("owner/echo-embeddings", path="workflow/Snakefile", tag="{tag}")
    config:
        config


# use all rules from https://github.com/owner/echo-embeddings
use rule * from echo_embeddings
"""


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A directory of git repositories, which stands for github.com; in ours two versions have tags."""
    top = tmp_path_factory.mktemp("origin")
    clone = top / "owner/echo-embeddings"
    for name in ("workflow", "config"):
        shutil.copytree(REPOSITORY / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    source = clone / "workflow/scripts/echo_embeddings/__init__.py"
    for version in (VERSION, "9.9.9"):
        source.write_text(source.read_text().replace(f'__version__ = "{VERSION}"', f'__version__ = "{version}"'))
        git = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgSign=false"]
        for command in ("init --quiet", "add .", f"commit --quiet -m {version}", f"tag v{version}"):
            subprocess.run([*git, *command.split()], cwd=clone, check=True)
    return top


@pytest.fixture
def snakemake(origin, installed, tmp_path):
    """Runs Snakemake in a directory, where github.com is `origin` and the package the installed one."""
    known = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.file://{origin}/.insteadOf"}
    known |= {"GIT_CONFIG_VALUE_0": "https://github.com/", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    known |= {"PYTHONPATH": str(installed), "GITHUB_TOKEN": ""}

    def run(directory, *arguments, program=None):
        if program is None:
            return fork(SNAKEMAKE, "snakemake", *arguments, cwd=directory, changes=known)
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=directory,
            env=environment() | known,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    return run


def deploy(directory, finished, snakefile, **more):
    """A project that takes the workflow as a module and works on one folder of the demo; `more` is configuration."""
    (directory / "workflow").mkdir(parents=True)
    (directory / "workflow/Snakefile").write_text(snakefile)
    (directory / "config").mkdir()
    shutil.copy(REPOSITORY / "config/demo-models.yaml", directory / "config")
    config = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    demo = yaml.safe_load((REPOSITORY / "config/demo.yaml").read_text())
    for name, value in demo.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    config |= {"dicom_dir": str(finished / "dicom"), "weights_dir": str(finished / "weights"), "folders": ["p11"]}
    config |= {"models_file": "config/demo-models.yaml", **more}
    (directory / "config/config.yaml").write_text(yaml.safe_dump(config))
    return directory


def test_a_workflow_that_snakedeploy_deploys_plans_all_and_runs_a_job(snakemake, finished, tmp_path):
    project = deploy(tmp_path / "project", finished, DEPLOYED.format(tag=f"v{VERSION}"), limit=1)
    planned = snakemake(project, "-n", "--quiet", "rules")
    assert planned.returncode == 0, planned.stdout
    assert set(re.findall(r"^(\w+) +\d+$", planned.stdout, re.MULTILINE)) >= {"convert", "embed", "merge", "qc_index"}
    table = "results/mp4/256/p11.manifest.tsv"
    done = snakemake(project, "--cores", "1", table)
    assert done.returncode == 0, done.stdout
    (made,) = (project / "results/mp4/256").rglob("*.mp4")
    assert made.read_bytes() == (finished / made.relative_to(project)).read_bytes()
    has_the_report(snakemake, project, table)


def has_the_report(snakemake, project, *targets):
    reported = snakemake(project, "--report", "report.html", *targets)
    assert reported.returncode == 0, reported.stdout
    page = (project / "report.html").read_text()
    caption = (REPOSITORY / "workflow/report/workflow.rst").read_text().split()[:4]
    assert " ".join(caption) in " ".join(page.split())


@pytest.mark.slow
def test_a_workflow_that_snakedeploy_deploys_runs_and_is_up_to_date(snakemake, finished, tmp_path):
    project = deploy(tmp_path / "project", finished, DEPLOYED.format(tag=f"v{VERSION}"))
    done = snakemake(project, "--cores", "2")
    assert done.returncode == 0, done.stdout
    made, expected = (
        torch.load(directory / "results/embeddings/vit-tiny_embeddings_p11.pt") for directory in (project, finished)
    )
    assert made.keys() == expected.keys()
    assert all(torch.equal(vector, expected[key]) for key, vector in made.items())
    assert (project / "results/qc/index.html").is_file()
    planned = snakemake(project, "-n")
    assert "Nothing to be done" in planned.stdout, planned.stdout
    has_the_report(snakemake, project)


def test_a_module_of_another_version_or_without_the_package_is_one_line(snakemake, finished, installed, tmp_path):
    project = deploy(tmp_path / "project", finished, DEPLOYED.format(tag="v9.9.9"))
    other = snakemake(project, "-n")
    assert other.returncode == 1
    assert (
        f"\nthis workflow is of version 9.9.9, the package echo-embeddings of {VERSION} ({installed}/echo_embeddings): "
        f"install version 9.9.9, or take the workflow of version {VERSION}\n"
    ) in other.stdout
    # As where it is not installed, which it is where the tests run.
    program = (
        "import runpy, sys; sys.modules['echo_embeddings'] = None; runpy.run_module('snakemake', None, '__main__')"
    )
    absent = snakemake(project, "-n", program=program)
    assert absent.returncode == 1
    assert "\nthis workflow is of version 9.9.9 and needs its package: install echo-embeddings 9.9.9 " in absent.stdout
    assert "Traceback" not in other.stdout + absent.stdout


def test_a_module_without_a_configuration_takes_the_packages_defaults(snakemake, finished, tmp_path):
    """Without `config:` it reads what the working directory and the command line say."""
    snakefile = DEPLOYED.format(tag=f"v{VERSION}").replace("    config:\n        config\n", "")
    project = deploy(tmp_path / "project", finished, snakefile)
    planned = snakemake(project, "-n", "--quiet", "rules")
    assert planned.returncode == 0, planned.stdout
    (project / "config/config.yaml").unlink()
    (project / "workflow/Snakefile").write_text(snakefile.replace('configfile: "config/config.yaml"\n', ""))
    planned = snakemake(project, "-n")
    assert "\nconfig: dicom_dir: no directory 'resources/dicom' in " in planned.stdout


def test_a_prefix_is_refused_in_one_line(snakemake, finished, tmp_path):
    snakefile = DEPLOYED.format(tag=f"v{VERSION}").replace("    config:\n", '    prefix: "echo"\n    config:\n')
    refused = snakemake(deploy(tmp_path / "project", finished, snakefile), "-n")
    assert refused.returncode == 1
    assert "\na module's `prefix` moves what its rules declare, and not what their jobs keep" in refused.stdout


INTERNALS = f"""
include: "{REPOSITORY}/workflow/rules/internals.smk"

print("READ", WORKFLOW_DIR, CONFIGFILES, PREFIXED, MAIN_PROCESS, CORES)
for i in range(2):  # as a Snakefile that is read twice: the last one tells
    on_job_error(lambda number, message, logs, i=i: print("TOLD", i, number, message, logs))

onstart:
    print("SLURM", jobs_go_to_slurm())

rule all:
    log: "results/logs/all.log"
    run:
        raise ValueError("no")
"""


def test_what_is_taken_from_snakemake_without_a_promise_is_as_it_was(tmp_path):
    """Tried with Snakemake 9.27; with another one see that this test passes, and change the number here."""
    assert importlib.metadata.version("snakemake").startswith("9.27.")
    (tmp_path / "Snakefile").write_text(INTERNALS)
    (tmp_path / "my.yaml").write_text("limit: 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "3", "--configfile", "my.yaml"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    read = re.findall("^READ .*", done.stdout, re.MULTILINE)
    ours = f"READ {REPOSITORY}/workflow .*my.yaml.* False {{}} {{}}"
    assert re.fullmatch(ours.format("True", 3), read[0])
    assert all(re.fullmatch(ours.format("False", r"\d"), line) for line in read[1:])
    assert len(read) == 2  # the second one is the job's
    assert re.findall("^SLURM .*", done.stdout, re.MULTILINE) == ["SLURM False"]
    told = set(re.findall("^TOLD .*", done.stdout, re.MULTILINE))
    assert told == {"TOLD 1 None None ['results/logs/all.log']"}


def test_nothing_else_is_taken_from_snakemake_without_a_promise():
    """All other attributes of `workflow` that the rules use are documented."""
    for path in [REPOSITORY / "workflow/Snakefile", *(REPOSITORY / "workflow/rules").glob("*.smk")]:
        if path.name != "internals.smk":
            assert set(re.findall(r"\bworkflow\.(\w+)\(?", path.read_text())) <= {"source_path", "rst"}, path
            assert "snakemake_interface" not in path.read_text(), path
