"""The package as a wheel, installed where there is no clone: registry, schemas and pages come with it."""

import os
import subprocess
import sys

from echo_embeddings.core import registry
from echo_embeddings.core.package import repository
from echo_embeddings.embed import run_record
from testing import REPOSITORY


def test_in_a_clone_the_registry_and_the_schemas_are_links_to_what_the_package_comes_with():
    assert repository() == REPOSITORY
    core = REPOSITORY / "workflow/scripts/echo_embeddings/core"
    assert registry.path(None) == REPOSITORY / "config/models.yaml"
    assert registry.path(None).samefile(core / "models.yaml")
    for name in ("config", "models", "labels"):
        assert (REPOSITORY / f"workflow/schemas/{name}.schema.yaml").samefile(core / f"{name}.schema.yaml")


def test_a_wheel_has_all_that_the_package_reads(installed):
    for source in (REPOSITORY / "workflow/scripts/echo_embeddings").rglob("*"):
        if source.is_file() and "__pycache__" not in source.parts:
            file = installed / source.relative_to(REPOSITORY / "workflow/scripts")
            assert file.read_bytes() == source.read_bytes()


def test_without_a_clone_the_configuration_the_registry_and_the_checks_of_the_machine_are_there(installed, tmp_path):
    program = """
import sys
from echo_embeddings.core import configuration, registry
from echo_embeddings.core.package import repository
from echo_embeddings.embed import run_record
from echo_embeddings.tools import machine

config = configuration.read(".")
models = configuration.check(config, data=False)
assert config == configuration.defaults()
print(repository(), run_record._commit(), registry.path(None), *models)
print(*(finding.says for finding in machine.software()), sep="; ")
"""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith(f"None None {installed}/echo_embeddings/core/models.yaml vitl vith vitg vitg-384 ")
    assert second.endswith(" as required")


def test_the_commit_of_a_clone_that_another_user_owns(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own tests have it for this
    refused = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert "dubious ownership" in refused.stderr
    monkeypatch.setattr(run_record, "repository", lambda: tmp_path)
    assert run_record._commit() == commit
