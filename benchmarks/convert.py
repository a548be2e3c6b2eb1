"""What the conversion costs and keeps, against the reference's method, in one run on the same files.

    python -m benchmarks.convert speed     CPU time a clip, interleaved; two workers against one
    python -m benchmarks.convert memory    resident memory on a clip of 2,000 frames of 708 x 1016
    python -m benchmarks.convert masks     CPU time of masked conversions against that without a mask, interleaved
    python -m benchmarks.convert codecs    size, PSNR, vector error and reading cost of codec settings

`--dicom DIR` takes the clips of a folder of yours in place of the cine that PyPI packages carry.
"""

import argparse
import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pydicom
import torch
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGBaseline8Bit

from benchmarks import reference
from benchmarks.common import LARGE, QUICK, SMALL, machine
from echo_embeddings.convert import video
from echo_embeddings.convert.folder import convert_file
from echo_embeddings.core import configuration, settings
from echo_embeddings.core.files import blake2b_of
from echo_embeddings.core.settings import ConvertSettings
from echo_embeddings.dicom.frames import decode_frames
from echo_embeddings.dicom.header import Skip, Unreadable, check_clip, read_header
from echo_embeddings.embed import inference, sampling
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import ARCHITECTURES, Architecture
from testing import conversion

READS = 25  # rounds of reading each file back
DEFAULT = settings.convert_settings(configuration.defaults(), 256)


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def sources(directory: str | None) -> list[str]:
    """The DICOM files to measure on."""
    if directory is None:
        return [str(get_testdata_file(LARGE, download=False))] * 4 + [str(get_testdata_file(SMALL, download=False))]
    found = []
    for path in sorted(p for p in Path(directory).rglob("*") if p.is_file()):
        try:
            dataset, offset = read_header(str(path))
            check_clip(str(path), dataset, offset, ())
        except (Skip, Unreadable):
            continue
        found.append(str(path))
    if not found:
        sys.exit(f"no clips below {directory}")
    return found


def ours(source: str, target: str, made: ConvertSettings = DEFAULT) -> None:
    """One clip by this workflow, in this process; ffmpeg is a child."""
    row = convert_file(source, "clip", Path(target), made)
    if row.status != "converted":
        sys.exit(f"{source}: {row.reason}")


def only_plugin(plugin: str) -> None:
    """Have pydicom decode JPEG by this plugin alone."""
    decoder = get_decoder(JPEGBaseline8Bit)
    for other in decoder.available_plugins:
        if other != plugin:
            decoder.remove_plugin(other)
    if plugin not in decoder.available_plugins:
        sys.exit(f"pydicom's plugin {plugin} is not installed; pip install pylibjpeg pylibjpeg-libjpeg (GPL)")


def speed(paths: list[str], runs: int, plugin: str) -> None:
    """CPU seconds of both methods over all files, interleaved; the median of the ratios."""
    only_plugin(plugin)
    ratios, walls = [], []
    with tempfile.TemporaryDirectory() as out:
        target = os.path.join(out, "clip.mp4")
        for run in range(runs):
            spent: dict[str, tuple[float, float]] = {}
            for name, method in (("reference", reference.convert), ("ours", ours)):
                cpu, wall = cpu_seconds(), time.perf_counter()
                for path in paths:
                    method(path, target)
                spent[name] = (cpu_seconds() - cpu, time.perf_counter() - wall)
            ratios.append(spent["reference"][0] / spent["ours"][0])
            walls.append(spent["reference"][1] / spent["ours"][1])
            print(
                f"run {run}: reference ({plugin}) {spent['reference'][0]:.2f} CPU-s, ours {spent['ours'][0]:.2f}: "
                f"{ratios[-1]:.2f} x; wall {walls[-1]:.2f} x",
                flush=True,
            )
    print(f"median {statistics.median(ratios):.2f} x per CPU-second, {statistics.median(walls):.2f} x wall ({plugin})")


def digest(paths: list[str], rounds: int = 20) -> None:
    """The share of the digest that the manifest keeps of an MP4 in the CPU time of its conversion."""
    spent = dict.fromkeys(("conversion", "digest"), 0.0)
    with tempfile.TemporaryDirectory() as out:
        target = os.path.join(out, "clip.mp4")
        for path in paths:
            began = cpu_seconds()
            ours(path, target)
            converted = cpu_seconds()
            for _ in range(rounds):
                blake2b_of(target)
            spent["conversion"] += converted - began
            spent["digest"] += (cpu_seconds() - converted) / rounds
    print(f"the MP4's digest: {spent['digest'] / spent['conversion']:.3%} of the conversion, {rounds} rounds a clip")


def masks(paths: list[str], runs: int) -> None:
    """CPU seconds of conversions that mask against those that do not, file by file in turn; the median of the ratios.

    By the regions of the header, and by motion where they are taken out, which is the dearest way.
    """
    ways = {"none": ("as it is", "none"), "regions": ("as it is", "regions"), "motion": ("bare", "sector")}
    ratios: dict[str, list[float]] = {name: [] for name in ways if name != "none"}
    with tempfile.TemporaryDirectory() as out:
        target = os.path.join(out, "clip.mp4")
        files = [{"as it is": path, "bare": without_regions(path, f"{out}/{i}.dcm")} for i, path in enumerate(paths)]
        for run in range(runs):
            spent, masked = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
            for versions in files:
                for name, (which, mask) in ways.items():
                    began = cpu_seconds()
                    row = convert_file(versions[which], "clip", Path(target), dataclasses.replace(DEFAULT, mask=mask))
                    spent[name] += cpu_seconds() - began
                    masked[name] += row.mask == name
            for name, found in ratios.items():
                found.append(spent[name] / spent["none"])
            said = ", ".join(
                f"{name} {ratios[name][-1]:.3f} x ({masked[name]} of {len(paths)} masked)" for name in ratios
            )
            print(f"run {run}: none {spent['none']:.2f} CPU-s; {said}", flush=True)
    for name, found in ratios.items():
        print(f"masked by {name}: median {statistics.median(found):.3f} x the CPU time of no mask, {runs} runs")


def without_regions(source: str, target: str) -> str:
    """Write the clip without its header's regions; returns `target`."""
    dataset = pydicom.dcmread(source)
    if "SequenceOfUltrasoundRegions" in dataset:
        del dataset.SequenceOfUltrasoundRegions
    dataset.save_as(target)
    return target


FOLDER_JOB = """
import os, sys
from pathlib import Path
from echo_embeddings.collection.units import Folder
from echo_embeddings.convert.folder import convert_folder
from echo_embeddings.core import configuration, settings
from echo_embeddings.core.layout import Layout

if __name__ == "__main__":
    workers = int(sys.argv[1])
    if workers == 1:
        os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
    convert_folder(
        Folder("bench", {folder!r}),
        Layout(Path(sys.argv[2])),
        settings.convert_settings(configuration.defaults(), 256),
        limit=0, workers=workers, timeout=600, max_failed_fraction=0,
    )
"""


def workers(paths: list[str], copies: int, runs: int) -> None:
    """Wall time of a folder's job with one worker pinned to one core and with two."""
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top, "dicom")
        folder.mkdir()
        for i in range(copies):
            for j, path in enumerate(paths):
                os.symlink(os.path.abspath(path), folder / f"{i:03d}_{j}.dcm")
        job = Path(top, "job.py")
        job.write_text(FOLDER_JOB.format(folder=str(folder)))
        ratios = []
        for run in range(runs):
            spent = {}
            for count in (1, 2):
                started = time.perf_counter()
                command = [sys.executable, str(job), str(count), os.path.join(top, f"out-{run}-{count}")]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                spent[count] = time.perf_counter() - started
            ratios.append(spent[1] / spent[2])
            print(f"run {run}: one worker {spent[1]:.1f} s, two {spent[2]:.1f} s: {ratios[-1]:.2f} x", flush=True)
    print(f"median {statistics.median(ratios):.2f} x with two workers, {copies * len(paths)} clips")


WORKER = """
import os, sys, threading
from pathlib import Path
from echo_embeddings.convert import folder
from echo_embeddings.core import configuration, settings

def peak(process):
    lines = Path("/proc", str(process), "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

def watch():
    while not done.wait(0.02):
        for process in Path("/proc/self/task", str(threading.main_thread().native_id), "children").read_text().split():
            try:
                if os.readlink(f"/proc/{process}/exe") != own:  # until it is ffmpeg it has this process's memory
                    child[0] = max(child[0], peak(process))
            except (OSError, StopIteration):  # it ended meanwhile
                continue

done, child, own = threading.Event(), [0], os.readlink("/proc/self/exe")
watcher = threading.Thread(target=watch)
watcher.start()
config = configuration.defaults()
config["convert"]["mask"] = sys.argv[3]
made = settings.convert_settings(config, 256)
row = folder.convert_file(sys.argv[1], "clip", Path(sys.argv[2]), made)
done.set()
watcher.join()
print(row.frames, peak("self"), child[0])
"""


def memory(frames: int, rows: int, columns: int, mask: str) -> None:
    """Peak resident memory of a worker and of its ffmpeg on a long clip, masked (by motion) or not."""
    with tempfile.TemporaryDirectory() as out:
        path = os.path.join(out, "long.dcm")
        long_clip(path, frames, rows, columns)
        command = [sys.executable, "-c", WORKER, path, os.path.join(out, "clip.mp4"), mask]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    converted, worker, child = map(int, done.stdout.split())
    print(
        f"{converted} frames of {rows} x {columns}, mask {mask}: "
        f"worker {worker / 1024:.0f} MB + ffmpeg {child / 1024:.0f} MB "
        f"= {(worker + child) / 1024:.0f} MB"
    )


def long_clip(path: str, frames: int, rows: int, columns: int) -> None:
    """Write a JPEG Baseline clip by repeating the large cine's frames at another size."""
    source = str(get_testdata_file(LARGE, download=False))
    dataset = pydicom.dcmread(source)
    decoded = decode_frames(check_clip(source, *read_header(source), ()))
    encoded = []
    for frame in decoded:
        large = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_CUBIC)
        encoded.append(cv2.imencode(".jpg", cv2.cvtColor(large, cv2.COLOR_RGB2BGR))[1].tobytes())
    dataset.PixelData = encapsulate([encoded[i % len(encoded)] for i in range(frames)])
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames, rows, columns
    del dataset.SequenceOfUltrasoundRegions  # which are those of another size
    dataset.save_as(path)


def windows(paths: list[str]) -> list[np.ndarray]:
    """Two windows of each different clip: uint8 frames [n, 256, 256, 3] as the encoder is to see them."""
    found = []
    for path in dict.fromkeys(paths):
        small = small_frames(path)
        found += [small[: len(small) // 2], small[len(small) // 2 :]]
    return found


def small_frames(path: str) -> np.ndarray:
    """A clip's frames as the conversion hands them to its codec, uint8 [n, 256, 256, 3]."""
    clip = check_clip(path, *read_header(path), ())
    return np.stack(list(conversion.small_frames(clip, 256, Path(tempfile.gettempdir()))))


def by_reference(frames: np.ndarray, path: str) -> None:
    """mp4v through OpenCV, as the reference writes it."""
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"), 30, frames.shape[2:0:-1])
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def by_us(**changes: object) -> Callable[[np.ndarray, str], None]:
    """This workflow's way, with other settings than the default."""
    made = dataclasses.replace(DEFAULT, **changes)
    return lambda frames, path: video.write(path, iter(frames), made, 30) and None


X264 = {"codec": "libx264", "gop": 250}
CODECS: dict[str, Callable[[np.ndarray, str], None]] = {
    "reference: mp4v through OpenCV": by_reference,
    "mpeg4 q 3, GOP 12": by_us(quality=3, gop=12, encoder_options={}),
    "mpeg4 q 3": by_us(quality=3, encoder_options={}),
    "mpeg4 q 3, bicubic": by_us(quality=3, encoder_options={}, scaler_flags="bicubic"),
    "mpeg4 q 3, trellis": by_us(quality=3, encoder_options={"trellis": 1}),
    "mpeg4 q 2.7, rd, trellis (default)": by_us(),
    "mpeg4 q 2.6, rd, trellis": by_us(quality=2.6),
    "mpeg4 q 2": by_us(quality=2, encoder_options={}),
    "libx264 crf 18 veryfast": by_us(**X264, quality=18, encoder_options={"preset": "veryfast"}),
    "libx264 crf 16, fastdecode": by_us(
        **X264, quality=16, encoder_options={"preset": "veryfast", "tune": "psnr,fastdecode"}
    ),
    "libx264 crf 14 medium, psnr": by_us(**X264, quality=14, encoder_options={"preset": "medium", "tune": "psnr"}),
    "libx264 crf 13 medium, psnr, 4:4:4": by_us(
        **X264, quality=13, encoder_options={"preset": "medium", "tune": "psnr"}, pixel_format="yuv444p"
    ),
}


def codecs(paths: list[str], seeds: int, label: str, architecture: Architecture, only: str) -> None:
    """Size, PSNR of the sampled frames, vector error and costs of the settings whose name holds `only`."""
    clips = windows(paths)
    indices = [sampling.frame_indices(len(frames), 16) for frames in clips]
    sampled = [frames[picked] for frames, picked in zip(clips, indices, strict=True)]
    encoders = [checkpoint.draw(architecture, seed) for seed in range(seeds)]
    exact = [[vector(encoder, frames) for encoder in encoders] for frames in sampled]
    print(f"{len(clips)} windows, {seeds} seeds, {label}; vector error against lossless frames")
    first = next(iter(CODECS))  # the reference
    chosen = {name: write for name, write in CODECS.items() if name == first or only in name}
    base: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as out:
        files = {name: [os.path.join(out, f"{n}-{i}.mp4") for i in range(len(clips))] for n, name in enumerate(chosen)}
        for name, write in chosen.items():
            started = cpu_seconds()
            for frames, path in zip(clips, files[name], strict=True):
                write(frames, path)
            writing = 1e3 * (cpu_seconds() - started) / sum(map(len, clips))
            read = [
                video.read(path, picked.tolist(), len(frames))
                for path, picked, frames in zip(files[name], indices, clips, strict=True)
            ]
            psnr = [
                10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)) for a, b in zip(read, sampled, strict=True)
            ]
            errors = [
                relative(vector(encoder, frames), known)
                for frames, vectors in zip(read, exact, strict=True)
                for encoder, known in zip(encoders, vectors, strict=True)
            ]
            kilobytes = sum(map(os.path.getsize, files[name])) / 1e3
            error = 100 * float(np.mean(errors or [np.nan]))
            base = base or {"kb": kilobytes, "error": error}
            print(
                f"{name:36s} {kilobytes:5.0f} KB ({kilobytes / base['kb']:.2f})  {np.mean(psnr):5.2f} dB  "
                f"error {error:.2f} % (sd {100 * float(np.std(errors or [np.nan])):.2f}; {error / base['error']:.2f})  "
                f"write {writing:.2f} ms a frame",
                flush=True,
            )
        spent: dict[str, list[float]] = {name: [] for name in chosen}
        for _ in range(READS):  # interleaved, since the machine's speed drifts
            for name in chosen:
                started = time.process_time()
                for path, picked, frames in zip(files[name], indices, clips, strict=True):
                    video.read(path, picked.tolist(), len(frames))
                spent[name].append(1e3 * (time.process_time() - started) / len(clips))
        for name, costs in spent.items():
            ratio = statistics.median(a / b for a, b in zip(costs, spent[first], strict=True))
            print(f"{name:36s} read {statistics.median(costs):5.1f} ms a clip ({ratio:.2f})")


def vector(encoder: torch.nn.Module, frames: np.ndarray) -> torch.Tensor:
    """The float32 vector of sampled frames."""
    return inference.forward(encoder, [torch.from_numpy(frames)], 256, torch.float32).vectors[0]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The relative error of `a` against `b`."""
    return float((a - b).norm() / b.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory", "masks", "codecs"])
    parser.add_argument("--dicom", help="a folder of your own clips")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--plugin", default="pillow", help="pydicom's JPEG decoder for the reference: pillow or pylibjpeg"
    )
    parser.add_argument("--only", default="", help="codec settings whose name holds this")
    parser.add_argument("--seeds", type=int, default=3, help="weights drawn for the vector error; 0 leaves it out")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    arguments = parser.parse_args()
    print(machine())
    paths = sources(arguments.dicom)
    if arguments.what == "speed":
        runs = 1 if arguments.quick else arguments.runs
        speed(paths[-1:] if arguments.quick else paths, runs, arguments.plugin)
        digest(paths[-1:] if arguments.quick else paths)
        workers(paths[-1:] if arguments.quick else paths, 2 if arguments.quick else 6, runs)
    elif arguments.what == "memory":
        for mask in ("none", "sector"):
            memory(*((130, 240, 320) if arguments.quick else (2000, 708, 1016)), mask)
    elif arguments.what == "masks":
        masks(paths[-1:] if arguments.quick else paths, 1 if arguments.quick else arguments.runs)
    else:
        large = "vit_large", ARCHITECTURES["vit_large"]
        encoder, seeds = (("vit_tiny of 2 blocks", QUICK), 1) if arguments.quick else (large, arguments.seeds)
        codecs(paths[-1:] if arguments.quick else paths, seeds, *encoder, arguments.only)


if __name__ == "__main__":
    main()
