"""The command `echo-embeddings`: its help, its errors, its exit status, and what it does not import."""

import inspect
import os
import re
import subprocess
import sys

import pytest

import echo_embeddings
from echo_embeddings.tools import cli
from testing import REPOSITORY
from testing.commands import call_command, copy_repository, environment, run_command

NAMES = [command.__name__ for command in cli.COMMANDS]


def test_the_help_tells_of_every_command():
    helped = run_command("--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    for command in cli.COMMANDS:
        says = inspect.getdoc(command).splitlines()[0]
        assert re.search(rf"^    {command.__name__} +{says[:30]}", helped.stdout, re.MULTILINE)
        assert says.endswith(".")
    assert "echo-embeddings doctor --configfile my.yaml" in helped.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_commands_help_has_examples_that_it_takes(name):
    """Each is parsed, so that no example can outlive its options."""
    helped = run_command(name, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    examples = re.findall(rf"^  echo-embeddings ({name}\b[^#\n]*)", helped.stdout, re.MULTILINE)
    assert examples
    for example in examples:
        cli.make_parser().parse_args(example.split())


def test_the_version_is_the_packages():
    assert run_command("--version").stdout == f"echo-embeddings {echo_embeddings.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "usage", "said"),
    [
        ([], "usage: echo-embeddings [-h]", "echo-embeddings: error: the following arguments are required: COMMAND"),
        (["doktor"], "usage: echo-embeddings [-h]", "invalid choice: 'doktor'"),
        (["verify"], "usage: echo-embeddings verify", "the following arguments are required: model"),
        (["status", "--watch", "0"], "usage: echo-embeddings status", "'0' is no time between 0.1 and 86400 seconds"),
        (["status", "--watch", "now"], "usage: echo-embeddings status", "'now' is no time between"),
        # It is not taken for --configfile.
        (["doctor", "--config", "limit=5"], "usage: echo-embeddings doctor", "arguments: --config limit=5"),
    ],
)
def test_a_wrong_call_ends_with_2_and_the_usage(arguments, usage, said):
    done = run_command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(usage)
    assert said in done.stderr.splitlines()[-1]


def test_what_the_user_can_correct_is_a_line_each_on_stderr(tmp_path):
    (tmp_path / "my.yaml").write_text("limti: 3\nmodels: [vitz]\n")
    done = run_command("models", "--directory", tmp_path, "--configfile", tmp_path / "my.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "echo-embeddings: config: unknown key 'limti'; did you mean 'limit'?"
    assert lines[1].startswith("echo-embeddings: config: models.0: 'vitz' is not in ")
    assert len(lines) == 2


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, finished):
    merged = finished / "results/embeddings/vit-tiny_embeddings_all.pt"
    (tmp_path / "file").touch()
    done = call_command("compare", merged, merged, "--output", tmp_path / "file/compare.html")
    assert done.returncode == 1
    assert re.fullmatch(rf"echo-embeddings: {tmp_path}/file\S*: (Not a directory|File exists)\n", done.stderr)


def test_a_reader_that_has_enough_is_no_error(tmp_path):
    """As in `echo-embeddings models | head -1`."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "echo_embeddings.tools.cli", "models", "--directory", tmp_path]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["--help"], ["doctor", "--help"], ["status"], ["models"]], ids=" ".join)
def test_nothing_waits_for_torch(finished, monkeypatch, arguments):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    if "--help" not in arguments:
        arguments = [*arguments, "--directory", finished, "--configfile", REPOSITORY / "config/demo.yaml"]
    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "echo_embeddings.core.errors" in imported
    assert not {"torch", "pydicom", "cv2", "pandas", "snakemake"} & imported


def test_make_calls_it(tmp_path):
    """The thin calls give it ARGS, and `make verify` the model; its exit status makes `make` fail."""
    copy_repository(tmp_path)
    program = tmp_path / ".venv/bin"
    program.unlink()
    program.mkdir()
    (program / "echo-embeddings").write_text('#!/bin/sh\necho "$@"\nexit 1\n')
    (program / "echo-embeddings").chmod(0o755)
    for name in NAMES:
        command = ["make", name, "MODEL=vitl", "ARGS=--configfile 'my file.yaml'"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment())
        model = "vitl " if name == "verify" else ""
        assert done.stdout == f"{name} {model}--configfile my file.yaml\n"
        assert done.returncode == 2


def test_the_installed_command_is_this_one(installed, tmp_path):
    """The wheel's own script, without a clone."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [installed / "bin/echo-embeddings", "models", "--directory", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model ")
    assert "\nvitl " in done.stdout
