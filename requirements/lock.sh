#!/usr/bin/env bash
# Writes the full resolved set of pyproject.toml's dependencies to run.txt and dev.txt, and the former once more to the
# environment for --sdm conda: Snakemake copies that file before conda reads it, so "-r run.txt" would not be found.
set -euo pipefail
cd "$(dirname "$0")/.."
torch="torch==2.13.0"
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
"${PYTHON:-python3}" -m venv "$venv"
names() {
    "$venv/bin/python" -c 'import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
print(*(project["project"]["dependencies"] if sys.argv[1] == "run" else project["dependency-groups"]["dev"]), sep="\n")' "$1"
}
# A CPU build and a GPU build must both satisfy the pins: no local version, none of the GPU build's own packages.
frozen() {
    "$venv/bin/pip" freeze | grep -viE '^(nvidia|cuda|triton)' | sed 's/^\(torch==[0-9.]*\)+.*/\1/' | LC_ALL=C sort -f
}
"$venv/bin/pip" install --quiet "$torch" -r <(names run)
frozen >"$venv/run.txt"
"$venv/bin/pip" install --quiet "$torch" -r <(names dev)
frozen | { grep -vxFf "$venv/run.txt" || true; } >"$venv/dev.txt"
{ echo "# What the workflow runs on, resolved by requirements/lock.sh."; cat "$venv/run.txt"; } >requirements/run.txt
{
    echo "# What tests, linting and benchmarks need besides, resolved by requirements/lock.sh."
    echo "-r run.txt"
    cat "$venv/dev.txt"
} >requirements/dev.txt
sed '/- pip:$/q' workflow/envs/echo-embeddings.yaml >"$venv/head.yaml"
{ cat "$venv/head.yaml"; sed 's/^/      - /' "$venv/run.txt"; } >workflow/envs/echo-embeddings.yaml
