"""What lies where a checkpoint should, by the file's first bytes; no weights are read, and torch is not imported."""

import os
import re
import stat
import zipfile
from pathlib import Path

SEVERAL = re.compile(r"-(\d{5})-of-(\d{5})\.[^.]+$")  # how Hugging Face names one file of several
GET_WHOLE = "fetch it again"
# The magic number that torch's format before version 1.6 begins with, as pickle writes it.
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
PACKED = {b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"(\xb5/\xfd": "zstd", b"7z\xbc\xaf": "7z"}


def absent(path: str | os.PathLike[str]) -> bool:
    """Whether nothing lies at `path`. What cannot be looked at is not absent: `refusal` says why."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def refusal(path: str | os.PathLike[str]) -> str | None:
    """Why what lies at `path` is no checkpoint, and what to do, in words; None where it may be one."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return _of_directory(Path(path))
        if not stat.S_ISREG(mode):
            return "not a file; put the checkpoint there or set weights_dir"
        with open(path, "rb") as file:
            start = file.read(1024)
    except (FileNotFoundError, NotADirectoryError):
        return "no such checkpoint; put it there or set weights_dir"
    except OSError as error:
        return f"cannot be opened: {error.strerror}; let the account that runs this read it, and its directory"
    if zipfile.is_zipfile(path):
        return _of_zip(path)
    return _of_start(start)


def shard(path: str | os.PathLike[str]) -> str:
    """What is to be said of a file that lacks weights if by its name it is one of several; else nothing."""
    found = SEVERAL.search(os.fspath(path))
    if not found or int(found[2]) < 2:
        return ""
    return f": it is number {int(found[1])} of {int(found[2])} files that hold the weights; save them as one file"


def _of_start(start: bytes) -> str | None:
    """As `refusal`, of the first bytes of a file that is no zip archive."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return f"not a whole checkpoint file but an empty one, 0 bytes; {GET_WHOLE}"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "a web page (HTML), which a drive or a proxy sent in the file's place; open the address in a browser"
    if start.startswith(b"version https://git-lfs.github.com/"):
        size = re.search(rb"^size (\d+)$", start, re.M)
        of = f" to {int(size[1]):,} bytes" if size else ""
        return f"a git-lfs pointer{of} and not the file itself; run `git lfs pull` where it was cloned"
    if b"/annex/objects/" in start:
        return "a git-annex pointer and not the file itself; run `git annex get` where it was cloned"
    if start.startswith(LEGACY):
        return (
            "in torch's format from before version 1.6, of which no part can be read alone; save it anew: "
            "torch.save(torch.load(FILE, weights_only=True), FILE)"
        )
    packed = [name for magic, name in PACKED.items() if start.startswith(magic)]
    if start[257:262] == b"ustar":
        packed = ["tar"]
    return f"packed ({packed[0]}); unpack it" if packed else None


def _of_zip(path: str | os.PathLike[str]) -> str | None:
    """As `refusal`, of a zip archive, which is what torch writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):  # torch says more of what is damaged
        return None
    if not any(name.endswith("data.pkl") for name in names):
        return f"a zip archive that torch did not write, with {names[0] if names else 'nothing'!r} in it; unpack it"
    if any(name.endswith("/constants.pkl") for name in names):
        return "not loaded: it would run code: it is a TorchScript program; take the file of its weights"
    return None


def _of_directory(path: Path) -> str:
    """As `refusal`, of a directory."""
    try:
        files = sorted(one.name for one in path.iterdir())
    except OSError as error:
        return f"a directory that cannot be listed: {error.strerror}; name the checkpoint's file"
    weights = [name for name in files if name.endswith((".safetensors", ".pt", ".pth", ".bin"))]
    several = [name for name in weights if shard(name)]
    if several:
        return f"a directory with the weights in {len(several)} files; save them as one file and name that"
    what = "a directory, a snapshot of Hugging Face" if "config.json" in files else "a directory"
    return f"{what}; name the file in it: {', '.join(weights[:3]) or 'there are no weights in it'}"
