"""The command `echo-embeddings`: what is run beside Snakemake.

A sub-command is a function in `COMMANDS`. Its name is the sub-command's, its docstring the help: the first line says
what it does, the rest are examples. It adds its options to the parser that it is given, and returns the function to
call with what was parsed, whose result is true if it found something wrong. What takes long to import, torch above
all, is imported in there.
"""

import argparse
import collections
import contextlib
import functools
import inspect
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..collection.source import Collection
from ..core import configuration, settings
from ..core.errors import UserError
from ..core.layout import Layout

PROGRAM = "echo-embeddings"
DESCRIPTION = "Commands beside the workflow, for before, during and after a run. Snakemake itself converts and embeds."
EXAMPLES = """
echo-embeddings doctor --configfile my.yaml             # before a run
echo-embeddings status --configfile my.yaml --watch     # during it, from any terminal
echo-embeddings COMMAND --help                          # options and examples of a command
"""
EXIT_STATUS = "exit status: 0 if all is well, 1 if something is wrong, 2 if the command was called wrongly"

Run = Callable[[argparse.Namespace], bool | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, by default those of the process; returns its exit status."""
    parsed, unknown = make_parser().parse_known_args(arguments)
    if unknown:  # said with the sub-command's usage, where argparse would show that of the whole
        parsed.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        wrong = parsed.run(parsed)
        sys.stdout.flush()
        return int(bool(wrong))
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:  # whoever read the output, head say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        return 130  # what a shell makes of SIGINT


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; what it returns has the sub-command's `run` and `parser`."""
    parser = argparse.ArgumentParser(PROGRAM, **_help(DESCRIPTION, EXAMPLES))
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        says, _, examples = inspect.cleandoc(command.__doc__ or "").partition("\n\n")
        added = commands.add_parser(command.__name__, help=says, **_help(says, examples))
        added.set_defaults(run=command(added), parser=added)
    return parser


def _help(says: str, examples: str) -> dict[str, Any]:
    """What a parser takes for its help; it takes no option for another one that is like it."""
    shown = textwrap.indent(examples.strip(), "  ")
    return {
        "description": says,
        "epilog": f"examples:\n{shown}\n\n{EXIT_STATUS}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }


def _fail(message: str) -> int:
    sys.stdout.flush()
    for line in message.splitlines():
        print(f"{PROGRAM}: {line}", file=sys.stderr)
    return 1


def _configured(parser: argparse.ArgumentParser) -> None:
    """Add the options by which Snakemake is told of the configuration; `_configuration` reads it."""
    parser.add_argument("--configfile", nargs="+", default=[], metavar="FILE", help="as given to snakemake")
    parser.add_argument(
        "--profile",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="as given to snakemake: a profile may name a configfile",
    )
    parser.add_argument(
        "--directory", default=".", metavar="DIR", help="as given to snakemake: where it runs (the current directory)"
    )


def _configuration(arguments: argparse.Namespace) -> dict[str, Any]:
    """The configuration that Snakemake would read, not checked yet; goes to its working directory."""
    files = arguments.configfile
    for profile in arguments.profile if not files else ():  # as with Snakemake, the last one that names some counts
        files = configuration.configfiles_of(configuration.profile_file(profile)) or files
    config = configuration.read(arguments.directory, *files)
    os.chdir(arguments.directory)
    return config


# --- the commands -----------------------------------------------------------------------------------


def doctor(parser: argparse.ArgumentParser) -> Run:
    """Check that everything is there that a run needs, and estimate its cost.

    echo-embeddings doctor --configfile my.yaml
    echo-embeddings doctor --configfile my.yaml --profile profiles/slurm
    """
    _configured(parser)

    def run(arguments: argparse.Namespace) -> bool:
        from .doctor import examine, page
        from .machine import RED, Finding

        profile = configuration.profile_file(arguments.profile[-1]).absolute() if arguments.profile else None
        found = list(examine(_configuration(arguments), profile))
        print(page(found, colour=sys.stdout.isatty()))
        return any(isinstance(one, Finding) and one.level == RED for one in found)

    return run


def status(parser: argparse.ArgumentParser) -> Run:
    """Show how far a run is: a table of its jobs, read from the files that they leave.

    echo-embeddings status --configfile my.yaml
    echo-embeddings status --configfile my.yaml --watch        # again every 5 seconds, until Ctrl-C
    """
    _configured(parser)
    parser.add_argument(
        "--watch", nargs="?", type=_seconds, const=5.0, metavar="SECONDS", help="show it again and again (every 5)"
    )

    def run(arguments: argparse.Namespace) -> None:
        from .status import Line, collect, table, watch

        config = _configuration(arguments)
        registry = configuration.check(config)

        def check() -> Iterator[Line]:
            """The table's lines, as things are now."""
            fed_with = {name: settings.model(config, registry, name).clips for name in config["models"]}
            return collect(Layout(), Collection.of(config).units(), fed_with)

        if arguments.watch is None:
            print(table(check()))
        else:
            watch(check, arguments.watch, sys.stdout)

    return run


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0.1 <= float(text) <= 86_400:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no time between 0.1 and 86400 seconds")


def models(parser: argparse.ArgumentParser) -> Run:
    """List the models: where each checkpoint is or comes from, and what a clip costs.

    echo-embeddings models
    echo-embeddings models --configfile my.yaml
    """
    _configured(parser)

    def run(arguments: argparse.Namespace) -> None:
        from .models import table

        config = _configuration(arguments)
        print(table(config, configuration.check(config, data=False)))

    return run


def embed(parser: argparse.ArgumentParser) -> Run:
    """Embed single files, DICOM or video, and tell how; nothing below results/ is touched.

    echo-embeddings embed clip.dcm --model vitl
    echo-embeddings embed clip.dcm clip.mp4 --model vitl --configfile my.yaml --out vectors.npy
    """
    parser.add_argument("file", nargs="+", type=_here, help="a DICOM, or a video: .mp4, .avi, .mov, .mkv, .webm")
    parser.add_argument("--model", required=True, help="a name that `models` lists, or one with -direct behind it")
    _configured(parser)
    parser.add_argument("--checkpoint", type=_here, metavar="FILE", help="of the model, if it lies elsewhere")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="by default a GPU where there is one")
    parser.add_argument(
        "--out", type=_npy, metavar="FILE.npy", help="write the vector, float32 [embed_dim]; of N files [N, embed_dim]"
    )

    def run(arguments: argparse.Namespace) -> None:
        # What OpenCV says of a broken video beside the one line that says it all; it reads these when it is imported.
        os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        from ..embed.one_file import load_model
        from .embed_files import embed_files

        for number in (signal.SIGTERM, signal.SIGHUP):  # the temporary MP4 of a patient is deleted before the end
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        config = _configuration(arguments)
        model = load_model(arguments.model, device=arguments.device, config=config, checkpoint=arguments.checkpoint)
        for line in embed_files(model, arguments.file, arguments.out):
            print(line, flush=True)

    return run


def _here(text: str) -> Path:
    """A path from where the command was called: `_configuration` goes to where Snakemake runs."""
    return Path(text).absolute()


def _npy(text: str) -> Path:
    if text.endswith(".npy"):
        return _here(text)
    raise argparse.ArgumentTypeError(f"{text!r} does not end with .npy")


def predict(parser: argparse.ArgumentParser) -> Run:
    """Write what a fitted head says of every clip that its model has a vector of, as a table.

    echo-embeddings predict --head results/evaluate/view/vitl.head.safetensors --configfile my.yaml
    echo-embeddings predict --head results/evaluate/view/vitl.head.safetensors --out results/predictions/view.parquet
    """
    parser.add_argument("--head", type=_here, required=True, metavar="FILE", help="which `snakemake evaluate` fitted")
    parser.add_argument(
        "--out", type=_table, metavar="FILE", help=".csv or .parquet (results/predictions/{task}-{model}.csv)"
    )
    _configured(parser)

    def run(arguments: argparse.Namespace) -> None:
        from ..evaluate.predict import predict

        config = _configuration(arguments)
        configuration.check(config, data=False)
        print(predict(arguments.head, arguments.out, Layout(), divided=settings.tables(config).divided))

    return run


def _table(text: str) -> Path:
    if text.endswith((".csv", ".parquet")):
        return _here(text)
    raise argparse.ArgumentTypeError(f"{text!r} ends with neither .csv nor .parquet")


def verify(parser: argparse.ArgumentParser) -> Run:
    """Embed one known clip with a model, and compare the vector with the recorded one.

    echo-embeddings verify vitl
    echo-embeddings verify vitl --configfile my.yaml --device cpu
    """
    parser.add_argument("model", help="a name that `models` lists")
    _configured(parser)
    parser.add_argument("--device", choices=["cuda", "cpu"], help="by default a GPU where there is one")

    def run(arguments: argparse.Namespace) -> None:
        from .verify import verify

        config = _configuration(arguments)
        print(verify(config, configuration.check(config, data=False), arguments.model, arguments.device))

    return run


def scrub(parser: argparse.ArgumentParser) -> Run:
    """Check every MP4 or video against the digest that its manifest has.

    echo-embeddings scrub --configfile my.yaml
    echo-embeddings scrub --configfile my.yaml --delete        # what is damaged
    """
    _configured(parser)
    parser.add_argument("--delete", action="store_true", help="delete damaged MP4 files that the workflow made")

    def run(arguments: argparse.Namespace) -> bool:
        from .scrub import advice, scrub, trees

        config = _configuration(arguments)
        registry = configuration.check(config)
        theirs, found = bool(config["mp4_dir"]), collections.Counter[str]()
        for tree in trees(config, registry):
            found += scrub(tree, functools.partial(print, flush=True), arguments.delete and not theirs)
        if not found:
            print("there are no videos to look at")
        wrong = advice(found, theirs, arguments.delete, settings.convert_rule(settings.convert_mask(config)))
        if wrong:
            print(wrong)
        return bool(wrong)

    return run


def compare(parser: argparse.ArgumentParser) -> Run:
    """Compare two embedding files clip by clip, and write a page about it.

    echo-embeddings compare old.pt results/embeddings/vitl_embeddings_all.pt --output compare.html
    """
    parser.add_argument("a", type=Path, help="an embedding file: a dict of key -> float32 vector")
    parser.add_argument("b", type=Path, help="another, of the same clips")
    parser.add_argument(
        "--output", type=Path, default=Path("compare.html"), help="the page; its numbers lie beside it (compare.html)"
    )
    parser.add_argument("--hash-names", action="store_true", help="short hashes in place of clips' names and no paths")

    def run(arguments: argparse.Namespace) -> None:
        from ..qc.page import make_comparison

        make_comparison(arguments.a, arguments.b, arguments.output, arguments.hash_names)
        print(f"{arguments.output} and {arguments.output.with_suffix('.json')}")

    return run


def rekey(parser: argparse.ArgumentParser) -> Run:
    """Carry results over to the names of a new record list; nothing is computed again.

    echo-embeddings rekey OLD NEW --record-list echo-record-list.csv
    echo-embeddings rekey OLD NEW --record-list echo-record-list.csv --dicom-dir /data/1.0.1/files
    """
    parser.add_argument("old", type=Path, help="the directory in which the workflow ran; it is not changed")
    parser.add_argument("new", type=Path, help="a directory without results")
    parser.add_argument("--record-list", required=True, help="of the new version: CSV or Parquet with dicom_filepath")
    parser.add_argument("--dicom-dir", help="of the new version, where its files are there")
    parser.add_argument("--renamed", type=Path, help="CSV with the columns old and new: paths")

    def run(arguments: argparse.Namespace) -> None:
        from .rekey import rekey

        record_list = settings.Table(arguments.record_list, "path", settings.KEY_COLUMNS["path"], name="record_list")
        report = rekey(arguments.old, arguments.new, record_list, arguments.dicom_dir, arguments.renamed)
        for what, files in report["what"].value_counts().items():
            print(f"{files:,} files: {what}")
        print(f"their names: {Layout(arguments.new / Layout().root).rekeyed()}")

    return run


COMMANDS = (doctor, status, models, embed, predict, verify, scrub, compare, rekey)


if __name__ == "__main__":  # without the command that the package installs: python -m echo_embeddings.tools.cli
    sys.exit(main())
