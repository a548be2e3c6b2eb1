"""README.md and docs/everyday.md as a newcomer uses them: every command is run as it stands there, in its order.

The models' names stand for the demo's small encoder, its collection for MIMIC-IV-Echo; nothing else is changed.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from packaging.specifiers import SpecifierSet

from echo_embeddings.core import manifest
from echo_embeddings.core.vectors import write_vectors
from echo_embeddings.tools import cli
from testing import REPOSITORY
from testing.commands import copy_repository, environment, run_snakemake

PAGES = ("README.md", "docs/everyday.md")
DOCS = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")),
    *(REPOSITORY / "docs").glob("*.md"),
]

# Commands of the pages that are not run here, by their whole text, and why.
ELSEWHERE = {
    "make demo": "conftest.finished runs it, and what follows here starts from its results",
    "make test": "it is what runs this",
    "git clone ADDRESS echo-embeddings && cd echo-embeddings": "conftest.copy_repository stands for it",
    "python3 -m venv .venv": "the clone's .venv is that in which the tests run",
    ".venv/bin/pip install torch==2.13.0+cpu --index-url https://download.pytorch.org/whl/cpu": "likewise",
    "make install": "`make lint`, with which .ci/run begins, does its work on a fresh machine",
    ".venv/bin/snakemake --configfile my.yaml --profile profiles/slurm": "tests/slurm/test_demo.py, on a real SLURM",
}
CLIP = "90000001_0002"  # the clip that `spoiled` makes unreadable
STANDS_FOR = {"94106955_0001": CLIP}  # and the collection, whose place is known when it is made


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", (REPOSITORY / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Each line of the page's bash blocks, without its comment."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines() if line.strip()]
    return [re.sub(r"\s+# .*", "", line).strip() for line in lines]


def small_models(resources: str) -> str:
    """A registry in which the demo's encoder has the names that the pages use."""
    entry = yaml.safe_load((REPOSITORY / "config/demo-models.yaml").read_text())["vit-tiny"]
    entry["checkpoint"] = f"{resources}/vit-tiny.pt"
    return yaml.safe_dump({"vitl": entry, "vith": entry, "vitg-384": {**entry, "resolution": 384}})


@pytest.fixture
def clone(finished, tmp_path) -> Path:
    """A clone of the repository in which the demo's files are converted, and one of them is spoiled since."""
    directory = tmp_path / "clone"
    directory.mkdir()
    copy_repository(directory)
    for name in ("results/mp4", "results/state/convert", ".snakemake"):
        shutil.copytree(finished / name, directory / name)
    demo = yaml.safe_load((REPOSITORY / "config/demo.yaml").read_text())
    text = (directory / "config/config.yaml").read_text()
    config = yaml.safe_load(text)
    for section in ("convert", "embed"):
        config[section] |= demo[section]
    config["embed"]["max_failed_fraction"] = 0.5
    (directory / "config/config.yaml").write_text(yaml.safe_dump(config))
    (directory / "config/models.yaml").write_text(small_models(str(finished / "weights")))
    (spoiled,) = (directory / "results/mp4/256/p10").rglob(f"{CLIP}.mp4")
    spoiled.write_bytes(b"not a video")
    return directory


def run(directory: Path, command: str, finished: Path) -> subprocess.CompletedProcess:
    """A line of a page in bash, with the environment's programs in PATH and the clone's package, as if installed."""
    for old, new in {**STANDS_FOR, "/data/mimic-iv-echo/files": str(finished / "dicom")}.items():
        command = command.replace(old, new)
    path = f"{directory}/.venv/bin{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env={**environment(), "PATH": path, "PYTHONPATH": str(directory / "workflow/scripts")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def calls_snakemake(command: str) -> bool:
    return command.removeprefix(".venv/bin/").startswith("snakemake ")


def run_page(page: str, directory: Path, finished: Path, small: bool = False) -> dict[str, str]:
    """What each command of the page said, by command; the first that fails ends it.

    In small Snakemake is left out, and nothing is run twice.
    """
    said = {}
    for command in commands(page):
        if command not in ELSEWHERE and not (small and (calls_snakemake(command) or command in said)):
            result = run(directory, command, finished)
            wrong = " scrub " in command  # it finds the spoiled clip
            assert result.returncode == int(wrong), f"{page}: {command}\n{result.stdout}"
            said[command] = result.stdout
    return said


@pytest.mark.slow
def test_the_pages_in_their_order(clone, finished):
    """Each part starts from what the one before it has left."""
    readme = run_page("README.md", clone, finished)
    the_commands_of_the_readme(readme, clone)
    a_line_can_be_added_to_the_configuration_that_the_readme_made(clone, finished)
    the_python_of_the_readme(clone)
    the_guides_commands_have_their_like(clone, finished)
    the_commands_of_everyday(clone, finished)


def results_of_vitl(clone, finished):
    """The demo's results, as a run of `vitl` would leave them: the clip that is spoiled has no vector."""
    old, new = finished / "results", clone / "results"
    shutil.copytree(old / "state/embed/vit-tiny", new / "state/embed/vitl")
    (new / "embeddings").mkdir()
    for part in ("p10", "p11", "all"):
        vectors = torch.load(old / f"embeddings/vit-tiny_embeddings_{part}.pt")
        kept = [key for key in vectors if CLIP not in key]
        write_vectors(new / f"embeddings/vitl_embeddings_{part}.pt", kept, torch.stack([vectors[key] for key in kept]))
        for key in vectors.keys() - kept:
            failed = new / f"embeddings/vitl_embeddings_{part}.failed.tsv"
            failed.write_text(f"key\treason\n{key}\tcannot be opened as a video\n")
    for folder in ("p10", "p11"):
        shutil.copy(
            old / f"embeddings/vit-tiny_embeddings_{folder}.json", new / f"embeddings/vitl_embeddings_{folder}.json"
        )
    (new / "qc").mkdir()
    for name in ("vit-tiny.html", "vit-tiny.json", "index.html"):
        shutil.copy(old / "qc" / name, new / "qc" / name.replace("vit-tiny", "vitl"))


def targets_that_snakemake_takes(clone) -> set[str]:
    """The targets of all the pages' lines that call Snakemake; its own parser takes them, or ends the process."""
    from snakemake.cli import parse_args  # noqa: PLC0415 - takes a second, in all of pytest's processes

    lines = [line for page in PAGES for line in commands(page) if calls_snakemake(line)]
    assert len(lines) >= 7
    with contextlib.chdir(clone):
        return {target for line in lines for target in parse_args(shlex.split(line)[1:])[1].targets}


def test_the_pages_in_small(clone, finished):
    """In their order, on results that are there; what Snakemake is asked for is planned, all at once."""
    results_of_vitl(clone, finished)
    readme = run_page("README.md", clone, finished, small=True)
    the_commands_of_the_readme(readme, clone)
    the_python_of_the_readme(clone)
    targets = targets_that_snakemake_takes(clone)
    assert targets == {"results/qc/vith.html", "results/embeddings/vitl_embeddings_p10.pt"}
    the_guides_commands_have_their_like(clone, finished, targets)
    everyday = run_page("docs/everyday.md", clone, finished, small=True)
    what_everyday_says(everyday, clone)


def the_commands_of_the_readme(readme, clone):
    (doctor,) = {said for command, said in readme.items() if " doctor " in command}
    assert "vitl" in doctor
    (status,) = {said for command, said in readme.items() if " status " in command}
    assert "4 jobs: 4 done" in status
    vectors = torch.load(clone / "results/embeddings/vitl_embeddings_all.pt")
    assert len(vectors) == 7  # of the demo's 8 clips, one is spoiled
    assert (clone / "results/qc/index.html").is_file()


def a_line_can_be_added_to_the_configuration_that_the_readme_made(clone, finished):
    (clone / "more.yaml").write_text((clone / "my.yaml").read_text() + "limit: 5\nembed: {device: cpu}\n")
    result = run(clone, "snakemake --configfile more.yaml -n", finished)
    assert result.returncode == 0, result.stdout
    assert "rule convert" in result.stdout  # as another limit asks for


def the_python_of_the_readme(clone):
    for block in blocks("README.md", "python"):
        said = io.StringIO()
        with contextlib.chdir(clone), contextlib.redirect_stdout(said):
            exec(compile(block, "README.md", "exec"), {})
        if "filename" in block:
            assert said.getvalue().count("torch.Size([192])") == 7


def the_guides_commands_have_their_like(clone, finished, more=frozenset()):
    table = (REPOSITORY / "README.md").read_text().split("## From the guide's commands")[1].split("\n## ")[0]
    cells = [row.split("|")[2] for row in table.splitlines() if row.startswith("| `")]
    found = [command for cell in cells for command in re.findall(r"`((?:snakemake|make|cp) .*?)`", cell)]
    dry = [command for command in found if command.startswith("snakemake ")]
    assert len(dry) >= 6
    assert set(found) - set(dry) == {"make install", "make demo", "cp .env.example .env"}
    assert (REPOSITORY / ".env.example").is_file()
    # As the table's words say: with the configuration; and all their targets in one dry run.
    targets = {word for command in dry for word in command.split() if word.startswith("results/")} | more
    result = run(clone, f"snakemake {' '.join(sorted(targets))} --configfile my.yaml -n", finished)
    assert result.returncode == 0, result.stdout
    named = re.findall(r"`(results/\S+?)`", table)
    assert {"results/qc/vitl.html", "results/qc/index.html"} <= set(named)
    assert all((clone / name).exists() for name in named)


def the_commands_of_everyday(clone, finished):
    vectors = clone / "results/embeddings/vitl_embeddings_all.pt"
    assert vectors.is_file()
    said = run_page("docs/everyday.md", clone, finished)
    what_everyday_says(said, clone)
    assert len(torch.load(clone / "results/embeddings/vith_embeddings_all.pt")) == 7


def what_everyday_says(said, clone):
    (scrubbed,) = {text for command, text in said.items() if " scrub " in command}
    assert f"{CLIP}.mp4: damaged\n" in scrubbed
    grepped = [text for command, text in said.items() if command.startswith("grep ")]
    assert "\tconverted\t" in grepped[0]
    assert grepped[1].startswith("p10000001/")
    assert not (clone / "results/embeddings/vitl_embeddings_all.pt").exists()  # the last command deletes it


@pytest.fixture
def module(finished, tmp_path) -> Path:
    """A directory with the Snakefile of docs/everyday.md, for one folder of the demo."""
    (example,) = blocks("docs/everyday.md", "snakemake")
    (tmp_path / "Snakefile").write_text(example)
    (tmp_path / "echo-embeddings").symlink_to(REPOSITORY)
    (tmp_path / "models.yaml").write_text(small_models(str(finished / "weights")))
    own = {"dicom_dir": str(finished / "dicom"), "folders": ["p11"], "models_file": "models.yaml"}
    own |= {"embed": {"device": "cpu", "num_workers": 1, "precision": "fp32"}, "convert": {"max_failed_fraction": 0.5}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(own))
    return tmp_path


def test_the_module_of_everyday_plans_all_and_runs_a_job(module):
    with (module / "my.yaml").open("a") as file:
        file.write("limit: 1\n")
    planned = run_snakemake(module, "-n", snakefile=module / "Snakefile")
    assert planned.returncode == 0, planned.stdout
    assert {"echo_convert", "echo_embed", "echo_merge", "count"} <= set(re.findall(r"rule (\w+):", planned.stdout))
    table = "results/mp4/256/p11.manifest.tsv"
    result = run_snakemake(module, "--cores", "1", table, snakefile=module / "Snakefile")
    assert result.returncode == 0, result.stdout
    assert [row.status for row in manifest.read(module / table)].count("converted") == 1


@pytest.mark.slow
def test_the_module_of_everyday(module, finished):
    result = run_snakemake(module, "--cores", "2", snakefile=module / "Snakefile")
    assert result.returncode == 0, result.stdout
    assert "rule echo_convert:" in result.stdout
    rows = manifest.read(finished / "results/mp4/256/p11.manifest.tsv")
    vectors = torch.load(module / "results/embeddings/vitl_embeddings_all.pt")
    assert set(vectors) == {row.mp4 for row in rows if row.mp4}
    assert (module / "count.txt").is_file()


def test_what_is_run_elsewhere_is_on_a_page():
    assert set(ELSEWHERE) <= {command for page in PAGES for command in commands(page)}


def test_every_command_that_the_docs_name_is_there():
    names = {name for page in DOCS for name in re.findall(r"echo-embeddings ([a-z]+)", page.read_text())}
    assert names >= {command.__name__ for command in cli.COMMANDS}
    for name in sorted(names):
        command = [Path(sys.executable).with_name("echo-embeddings"), name, "--help"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_every_make_target_and_every_file_that_the_docs_name_is_there():
    rules = re.findall(r"^([a-z -]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    for page in DOCS:
        text = page.read_text()
        assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets, page
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            name, _, anchor = link.partition("#")
            if "://" in link:
                continue
            linked = (page.parent / name) if name else page
            assert linked.exists(), f"{page.name}: {link}"
            if anchor:
                headings = re.findall(r"^#+ (.*)", linked.read_text(), re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in anchors, f"{page.name}: {link}"


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    text = (REPOSITORY / page).read_text().split(heading)[1]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table]


def keys_of(schema: dict, above: str = "") -> dict[str, dict]:
    """The schema's keys as the pages write them, `section.key`."""
    found = {}
    for key, part in schema["properties"].items():
        found |= keys_of(part, f"{above}{key}.") if "properties" in part else {above + key: part}
    return found


def schema(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / f"workflow/schemas/{name}.schema.yaml").read_text())


def test_the_guides_flags_are_keys_that_are_there():
    known = keys_of(schema("config"))
    for flag, key, _ in rows("docs/guide.md", "## Flags"):
        assert flag.startswith("`--")
        if not key.startswith("none"):
            named = re.match(r"`([\w.]+)", key)[1]
            assert named in known, flag


def test_config_readme_explains_every_key_with_its_default():
    known = keys_of(schema("config"))
    explained = {
        key.strip("`"): (default, unit, words) for key, default, unit, words in rows("config/README.md", "# C")
    }
    assert explained.keys() == known.keys()
    for key, (default, _, words) in explained.items():
        assert yaml.safe_load(default.strip("`")) == known[key]["default"], key
        assert words, key


def test_config_readme_explains_every_key_of_the_registry():
    registry = schema("models")["additionalProperties"]
    explained = {}
    for names, default, _ in rows("config/README.md", "## The model registry"):
        explained |= dict.fromkeys(re.findall(r"`(\w+)`", names), default)
    assert explained.keys() == registry["properties"].keys()
    for key, default in explained.items():
        assert (default == "") == (key in registry["required"]), key
        assert yaml.safe_load(default.strip("`")) == registry["properties"][key].get("default"), key


def test_the_conda_environment_has_the_pins_and_a_python_that_we_run_on():
    environment = yaml.safe_load((REPOSITORY / "workflow/envs/echo-embeddings.yaml").read_text())
    *packages, pip = environment["dependencies"]
    texts = ((REPOSITORY / f"requirements/{name}.txt").read_text() for name in ("run", "encoders"))
    lines = [line for text in texts for line in text.splitlines() if not line.startswith(("#", "-r"))]
    assert sorted(pip["pip"]) == sorted(lines)
    python, installer = packages
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert python.removeprefix("python=") in SpecifierSet(project["requires-python"])
    assert installer == "pip"


def test_the_catalog_is_told_how_the_workflow_is_used():
    usage = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["mandatory-flags"].keys() == {"desc", "flags"}
    assert usage["software-stack-deployment"]["conda"] is True
    assert usage["report"] is True
