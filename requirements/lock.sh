#!/usr/bin/env bash
# Writes the full resolved set of pyproject.toml's dependencies to run.txt, encoders.txt and dev.txt, and the first two
# once more to the environment for --sdm conda, which all models share: Snakemake copies that file before conda reads it,
# so "-r run.txt" would not be found.
set -euo pipefail
cd "$(dirname "$0")/.."
torch="torch==2.13.0"
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
"${PYTHON:-python3}" -m venv "$venv"
names() {
    "$venv/bin/python" -c 'import sys, tomllib
file = tomllib.load(open("pyproject.toml", "rb"))
project, groups = file["project"], file["dependency-groups"]
sets = {"run": project["dependencies"], "encoders": project["optional-dependencies"]["encoders"], "dev": groups["dev"]}
print(*sets[sys.argv[1]], sep="\n")' "$1"
}
# A CPU build and a GPU build must both satisfy the pins: no local version, none of the GPU build's own packages.
frozen() {
    "$venv/bin/pip" freeze | grep -viE '^(nvidia|cuda|triton)' | sed -E 's/^(torch(vision)?==[0-9.]*)\+.*/\1/' | LC_ALL=C sort -f
}
"$venv/bin/pip" install --quiet "$torch" -r <(names run)
frozen >"$venv/run.txt"
"$venv/bin/pip" install --quiet "$torch" -r <(names encoders)
frozen >"$venv/both.txt"
grep -vxFf "$venv/run.txt" "$venv/both.txt" >"$venv/encoders.txt"
"$venv/bin/pip" install --quiet "$torch" -r <(names dev)
frozen | { grep -vxFf "$venv/both.txt" || true; } >"$venv/dev.txt"
{ echo "# What the workflow runs on, resolved by requirements/lock.sh."; cat "$venv/run.txt"; } >requirements/run.txt
{
    echo "# What encoders of the families echoprime, panecho and frames need besides, resolved by requirements/lock.sh."
    echo "-r run.txt"
    cat "$venv/encoders.txt"
} >requirements/encoders.txt
{
    echo "# What tests, linting and benchmarks need besides, resolved by requirements/lock.sh."
    echo "-r encoders.txt"
    cat "$venv/dev.txt"
} >requirements/dev.txt
sed '/- pip:$/q' workflow/envs/echo-embeddings.yaml >"$venv/head.yaml"
{ cat "$venv/head.yaml"; sed 's/^/      - /' "$venv/both.txt"; } >workflow/envs/echo-embeddings.yaml
