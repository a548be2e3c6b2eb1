"""Clips to vectors: this workflow against the reference's method, same files, same workers, one run.

    python -m benchmarks.embed run        end to end, the encoder alone, the loader alone, the reference
    python -m benchmarks.embed run --source dicom    the same straight from DICOM, which the reference cannot
    python -m benchmarks.embed startup    from process start to the first vector, with a checkpoint of 5 GB

The files are MP4s of the real clips that PyPI packages carry; the weights are drawn at random.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from pydicom.data import get_testdata_file

from benchmarks import reference
from benchmarks.common import LARGE, SMALL, machine, synchronize, unknown_to_workers, write_videos
from echo_embeddings.collection.units import Folder
from echo_embeddings.convert.folder import read_row
from echo_embeddings.core import configuration, manifest, settings
from echo_embeddings.core.layout import DICOM, Layout
from echo_embeddings.core.manifest import Row
from echo_embeddings.core.settings import Model
from echo_embeddings.embed import folder as embed_module
from echo_embeddings.embed import loader, preprocessing
from echo_embeddings.embed.folder import ComputeOptions, embed_folder
from echo_embeddings.embed.inference import DTYPES, Extractor
from echo_embeddings.embed.pooling import Pooled
from echo_embeddings.embed.reader import Reader
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import architecture
from echo_embeddings.encoders.vjepa import Encoder

FOLDER = "benchmark"


class Timed(Extractor):
    """Notes when vectors come."""

    last: "Timed"

    def run(self, clips: Iterable[tuple[int, torch.Tensor]]) -> Iterator[tuple[list[int], Pooled]]:
        self.came = [(time.perf_counter(), 0)]
        Timed.last = self
        for indices, pooled in super().run(clips):
            self.came.append((time.perf_counter(), len(indices)))
            yield indices, pooled


def steady(came: list[tuple[float, int]]) -> float:
    """Clips a second over the later half, when workers have started and what is compiled is compiled."""
    later = came[len(came) // 2 :]
    return sum(count for _, count in later[1:]) / (later[-1][0] - later[0][0])


def in_all(came: list[tuple[float, int]]) -> float:
    """Clips a second from the first wait on: workers' start and compilation counted in."""
    return sum(count for _, count in came) / (came[-1][0] - came[0][0])


@torch.inference_mode()
def encoder_alone(extractor: Extractor, encoder: Encoder, model: Model, device: str, clips: int) -> float:
    """Clips a second of the encoder on prepared input that lies on the device, set as the extraction left it."""
    shape = (extractor.batch_size, 3, model.num_frames, model.resolution, model.resolution)
    video = torch.randn(shape, device=device).to(DTYPES[model.precision])
    rounds = max(2, clips // extractor.batch_size)
    with extractor._stance(extractor.compiled):
        encoder(video)
        synchronize(device)
        started = time.perf_counter()
        for _ in range(rounds):
            encoder(video)
        synchronize(device)
    return rounds * extractor.batch_size / (time.perf_counter() - started)


def loader_alone(reader: Reader, rows: list[Row], workers: int, device: str) -> float:
    """Clips a second that the workers deliver when nobody holds them up, after the first clip."""
    with loader.load(reader, rows, workers, 300, device == "cuda") as clips:
        next(clips)
        started = time.perf_counter()
        count = sum(1 for _ in clips)
        return count / (time.perf_counter() - started)


def prepare(top: Path, model: Model, clips: int, copies: int = 1) -> list[Row]:
    """Files in `top`/clips, manifest and a checkpoint with that many copies of the encoder."""
    if model.clips == DICOM:
        rows = [read_row(str(path), path.name, ()) for path in link_dicom(top / "clips", clips)]
    else:
        rows = [
            Row(path.name, path.name, "converted", "", frames, mp4_bytes=path.stat().st_size)
            for path, frames in write_videos(top / "clips", clips, model.resolution)
        ]
    manifest.write(Layout(top).manifest(model.clips, FOLDER), rows)
    state = checkpoint.draw(architecture(model.constructor, model.family), 0).state_dict()
    others = {f"copy_{i}": {key: tensor.clone() for key, tensor in state.items()} for i in range(1, copies)}
    checkpoint.save(top / "model.pt", {model.entry: state, **others}, "drawn for a benchmark")
    return rows


def link_dicom(top: Path, clips: int) -> Iterator[Path]:
    """Links to the two real cines, by turns."""
    top.mkdir()
    for i in range(clips):
        path = top / f"{i:05}.dcm"
        path.symlink_to(get_testdata_file((LARGE, SMALL)[i % 2]))
        yield path


def run(model: Model, device: str, clips: int, workers: int, batch_size: int, theirs: int, their_clips: int) -> None:
    """All of it; `theirs` is the reference's batch size, and `their_clips` how many clips it computes: 0 for none."""
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        rows = prepare(top, model, clips)
        fed = "straight from DICOM, " if model.clips == DICOM else ""
        print(f"{model.name} {model.precision} on {device}: {fed}{clips} clips, {workers} workers", flush=True)
        embed_module.Extractor = Timed
        options = ComputeOptions(device, batch_size, workers, os.cpu_count() or 1, save_every=1000)
        tree, layout = top / "clips", Layout(top)
        reader = embed_module.reader_of(model, tree)
        embed_folder(Folder(FOLDER, str(tree)), model, top / "model.pt", tree, layout, options, max_failed_fraction=0)
        ours = Timed.last
        alone = encoder_alone(ours, ours._encoder, model, device, min(clips, 50 * ours.batch_size))
        delivered = loader_alone(reader, rows[:5000], workers, device)
        rate = steady(ours.came)
        total = ours.came[-1][0] - ours.came[0][0]
        print(f"encoder alone        {alone:8.2f} clips/s, batches of {ours.batch_size}, compiled: {ours.compiled}")
        print(f"end to end           {rate:8.2f} clips/s = {100 * rate / alone:.1f} % of the encoder alone")
        print(
            f"  counting the start {in_all(ours.came):8.2f} clips/s; of {total:.1f} s, {ours.waited:.1f} s were spent "
            "waiting for clips, workers' start included"
        )
        print(
            f"loader alone         {delivered:8.2f} clips/s = {delivered / alone:.2f} x the encoder, {workers} workers"
        )
        stages(reader, rows, model, device)
        if not their_clips:
            return
        encoder = checkpoint.load(top / "model.pt", model).to(device)
        came = [(time.perf_counter(), 0)]
        paths = [str(tree / row.mp4) for row in rows[:their_clips]]
        vectors: dict[str, torch.Tensor] = {}
        for made in reference.embed(
            encoder, paths, device, theirs, workers, model.resolution, bf16=model.precision == "bf16"
        ):
            came.append((time.perf_counter(), len(made)))
            vectors |= made
        found = torch.load(layout.vectors(model.name, FOLDER))
        apart = max(
            float((found[row.mp4] - vectors[str(tree / row.mp4)]).norm() / found[row.mp4].norm())
            for row in rows[:their_clips]
        )
        print(
            f"reference            {steady(came):8.2f} clips/s, batches of {theirs}, counting the start "
            f"{in_all(came):.2f}; its vectors are at most {100 * apart:.2f} % apart from ours"
        )
        print(
            f"ours / reference     {rate / steady(came):8.2f} x; "
            f"counting the start {in_all(ours.came) / in_all(came):.2f} x"
        )


@torch.inference_mode()
def stages(reader: Reader, rows: list[Row], model: Model, device: str) -> None:
    """What one clip costs on its way to the encoder, one after the other, in this process."""
    count = min(len(rows), 16)
    started = time.perf_counter()
    clips = [reader.read(row) for row in rows[:count]]
    decoded = (time.perf_counter() - started) / count
    frames = torch.from_numpy(clips[0])[None]
    uploaded = frames.to(device)
    preprocessing.preprocess(uploaded, model.resolution)
    synchronize(device)
    started = time.perf_counter()
    for _ in range(20):
        frames.to(device)
    synchronize(device)
    copied = (time.perf_counter() - started) / 20
    started = time.perf_counter()
    for _ in range(20):
        preprocessing.preprocess(uploaded, model.resolution).to(DTYPES[model.precision])
    synchronize(device)
    prepared = (time.perf_counter() - started) / 20
    print(
        f"a clip: {1e3 * decoded:.1f} ms to decode (one process), {1e3 * copied:.2f} ms to copy, "
        f"{1e3 * prepared:.2f} ms to resize, crop and normalise (not compiled)"
    )


STARTUP = """
import time
began = {began}
up = time.time() - began
import sys
from pathlib import Path
from echo_embeddings.collection.units import Folder
from echo_embeddings.core.layout import Layout
from echo_embeddings.core.recipe import Recipe
from echo_embeddings.core.settings import Model
from echo_embeddings.embed import folder, inference

def says(module, name, words):
    real = getattr(module, name)
    def wrapped(*a, **k):
        made = real(*a, **k)
        print(f"{{time.time() - began:6.1f}} s: {{words}}", flush=True)
        return made
    setattr(module, name, wrapped)

if __name__ == "__main__":
    del __file__  # as in a job: its worker does not import this
    print(f"{{up:6.1f}} s: Python is up")
    print(f"{{time.time() - began:6.1f}} s: torch imported", flush=True)
    says(folder, "checkpoint_digest", "digest of the checkpoint known")
    says(folder, "load_encoder", "checkpoint mapped, keys and shapes compared")
    says(folder, "_extractor", "encoder on the device")
    says(inference, "forward", "first batch computed")
    top = Path({top!r})
    options = folder.ComputeOptions({device!r}, 1, 1, {threads}, 1000)
    folder.embed_folder(
        Folder({folder!r}, ""), {model!r}, top / "model.pt", top / "clips", Layout(top), options, max_failed_fraction=0
    )
"""


def startup(model: Model, device: str, copies: int) -> None:
    """Twice: with the digest of the checkpoint to be computed, and known."""
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        rows = prepare(top, model, 2, copies)
        layout = Layout(top)
        manifest.write(layout.manifest(model.resolution, FOLDER), rows[:1])
        print(f"{model.name} on {device}, a checkpoint of {(top / 'model.pt').stat().st_size / 1e9:.2f} GB")
        script = top / "startup.py"
        for what in ("first job", "later job"):
            print(f"{what}:", flush=True)
            script.write_text(
                STARTUP.format(
                    began=time.time(),
                    top=str(top),
                    model=model,
                    folder=FOLDER,
                    device=device,
                    threads=os.cpu_count(),
                )
            )
            subprocess.run([sys.executable, script], check=True)
            for path in layout.state("embed", model.name, FOLDER).glob("*.pt"):
                path.unlink()


def main() -> None:
    config = configuration.defaults()
    registry = configuration.check(config, data=False)
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "startup"])
    parser.add_argument("--source", default="mp4", choices=["mp4", "dicom"])
    parser.add_argument("--model", default="vitl", choices=list(registry))
    parser.add_argument("--precision", default="bf16", choices=list(DTYPES))
    parser.add_argument("--device", default="cuda" if cuda else "cpu", choices=["cuda", "cpu"])
    parser.add_argument("--clips", type=int, default=20000 if cuda else 12)
    parser.add_argument("--reference-clips", type=int, help="how many of them the reference's method does; all")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--quick", action="store_true", help="a small encoder and few clips, to see that it works")
    arguments = parser.parse_args()
    unknown_to_workers()
    print(machine())
    model = dataclasses.replace(settings.model(config, registry, arguments.model), precision=arguments.precision)
    if arguments.quick:
        model = Model("vit-tiny", "vit_tiny", 64, 192, "encoder", 16, arguments.precision)
    model = dataclasses.replace(model, recipe=dataclasses.replace(model.recipe, source=arguments.source))
    if arguments.what == "startup":
        startup(model, arguments.device, 2 if arguments.quick else 4)
    else:
        config["embed"]["device"] = arguments.device
        ours = settings.batch_size(config, registry, arguments.model)
        theirs = reference.BATCH.get(arguments.model, 32) if arguments.device == "cuda" else 2
        clips = 12 if arguments.quick else arguments.clips  # three batches
        their_clips = 0 if arguments.source == "dicom" else arguments.reference_clips or clips
        run(model, arguments.device, clips, arguments.workers, ours, theirs, their_clips)


if __name__ == "__main__":
    main()
