"""Configurations that are wrong stop with one line each, before any job."""

import subprocess
import sys

import pytest
import yaml

from echo_embeddings.core.layout import Layout
from testing import REPOSITORY
from testing.commands import run_demo, run_snakemake


def test_a_configuration_in_the_working_directory_is_laid_over_the_defaults(finished, tmp_path):
    (tmp_path / "config").mkdir()
    own = {"dicom_dir": str(finished / "dicom"), "weights_dir": str(finished / "weights"), "models": ["vit-tiny"]}
    own |= {"models_file": str(REPOSITORY / "config/demo-models.yaml"), "embed": {"device": "cpu"}, "limit": 1}
    (tmp_path / "config/config.yaml").write_text(yaml.safe_dump(own))
    listed = run_snakemake(tmp_path, "-n", "--quiet", "rules")
    assert listed.returncode == 0, listed.stdout
    assert "embed " in listed.stdout
    wrong = run_snakemake(tmp_path, "-n", "--config", "embed={device: gpu}", "limit=2")
    assert "config: embed.device: 'gpu' is not one of ['cuda', 'cpu']" in wrong.stdout


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "{limti: 3, dicom_dir: nowhere, models: [vitz], embed: {precision: fp16}}",
            [
                "config: unknown key 'limti'; did you mean 'limit'?",
                "config: embed.precision: 'fp16' is not one of ['bf16', 'fp32']",
                "config: models.0: 'vitz' is not in",
                "config: dicom_dir: no directory 'nowhere' in",
            ],
        ),
        ("weights_dir: elsewhere", ["model vit-tiny: no checkpoint elsewhere/vit-tiny.pt"]),
    ],
)
def test_wrong_configurations_stop_with_their_lines(finished, text, lines):
    result = run_demo(finished, "-n", change=text)
    assert result.returncode != 0
    assert "Traceback" not in result.stdout
    for line in lines:
        assert line in result.stdout
    said = [line for line in result.stdout.splitlines() if not line.startswith("Config file ")]
    assert sum(line.startswith(("config:", "model ")) for line in said) == len(lines)


def test_a_key_that_stands_twice_stops_with_one_line(finished, tmp_path):
    (tmp_path / "my.yaml").write_text("limit: 5\nlimit: 0\n")
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        REPOSITORY / "workflow/Snakefile",
        "--directory",
        finished,
        "-n",
    ]
    files = [REPOSITORY / "config/demo.yaml", tmp_path / "my.yaml"]
    done = subprocess.run([*command, "--configfile", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        f"config: {tmp_path}/my.yaml is not YAML: line 2: 'limit' stands in line 1 already" in done.stdout + done.stderr
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("select: kind == bmode", "config: select: no column 'bmode'; a text stands in quotes; columns: folder, "),
        ("select: frames.max() > 3", "config: select: 'frames.max()' is not allowed"),
        ("{select: view == 'A4C', tables: [{file: no.csv, by: path}]}", "config: tables.0: no file 'no.csv' in "),
        ("tables: [{file: x.csv, by: clip}]", "config: tables.0.by: 'clip' is not one of ['path', 'study', 'patient']"),
        ("require_complete: true", "config: require_complete: set record_list too"),
        ("export: {columns: [default, colour]}", "config: export.columns: no column 'colour'; did you mean 'columns'?"),
        ("record_list: no.csv", "config: record_list: no file 'no.csv' in "),
    ],
)
def test_wrong_words_about_tables_stop_with_one_line(finished, text, line):
    result = run_demo(finished, "-n", change=text)
    assert result.returncode != 0
    assert line in result.stdout
    assert "Traceback" not in result.stdout
    said = [one for one in result.stdout.splitlines() if not one.startswith("Config file ")]
    assert sum(one.startswith("config:") for one in said) == 1


def test_the_rules_can_be_listed_and_checked_without_a_collection(tmp_path):
    listed = run_snakemake(tmp_path, "--list-rules")
    assert listed.returncode == 0, listed.stdout
    assert {"convert", "embed", "merge", "qc_model"} <= set(listed.stdout.split())
    assert run_snakemake(tmp_path, "--lint").returncode == 0
    for target in ("all", "results/mp4/256/p10.manifest.tsv"):
        planned = run_snakemake(tmp_path, "-n", target)
        assert planned.returncode != 0
        assert "\nconfig: dicom_dir: no directory 'resources/dicom' in " in planned.stdout
        assert "Traceback" not in planned.stdout


def test_a_target_of_a_model_that_is_not_there_is_one_line(finished):
    target = "results/embeddings/vit-tny_embeddings_all.pt"
    done = run_demo(finished, "-n", "--", target)
    assert done.returncode != 0
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("target ")]
    assert line.startswith(f"target {target}: the model 'vit-tny' is not in ")
    assert line.endswith("; did you mean 'vit-tiny'?")
    assert "MissingRule" not in done.stdout


def test_the_model_in_the_name_of_a_result():
    layout = Layout()
    paths = (
        layout.merged("a"),
        layout.vectors("a", "p10"),
        layout.card("a"),
        layout.page("a"),
        layout.matrix_keys("a"),
        layout.evaluation("ef", "a"),
        layout.evaluation_predictions("ef", "a"),
        layout.evaluation_head("ef", "a"),
    )
    assert [layout.model_of(str(path)) for path in paths] == ["a"] * len(paths)
    assert layout.model_of("./results/study/vit-tiny.parquet") == "vit-tiny"
    assert layout.model_of(str(layout.feature_index("tokens", "b_embeddings_c", "p10"))) == "b_embeddings_c"
    none = (str(layout.evaluation_page("ef")), str(layout.evaluation_index()))
    for path in ("all", "results/qc/index.html", "results/mp4/256/p10.manifest.tsv", "elsewhere/qc/a.html", *none):
        assert layout.model_of(path) is None
