"""`echo-embeddings scrub`, and the embedding, on MP4 files that are no longer what was made."""

import os
import shutil

import pytest

from echo_embeddings.convert import video
from echo_embeddings.core import manifest
from echo_embeddings.core.locks import exclusive_lock
from testing import REPOSITORY
from testing.commands import call_command, run_demo

FOLDER = "results/mp4/256/p10"
AGAIN = "run with --forcerun convert, which makes what is deleted and gone again"


def flip(path):
    """One bit of an MP4's pixels; its size and time stay, and it decodes without complaint."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[content.index(b"mdat") + 600] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def scrub(work, *options, configfile=REPOSITORY / "config/demo.yaml"):
    done = call_command("scrub", "--directory", work, "--configfile", configfile, *options)
    assert done.stderr == ""
    return done.returncode, done.stdout


def clips(work, folder=FOLDER):
    rows = [row for row in manifest.read(work / f"{folder}.manifest.tsv") if row.mp4]
    return rows, [work / folder / row.mp4 for row in rows]


def test_damage_is_found_deleted_and_made_again(work):
    assert scrub(work) == (0, "p10 at 256: 4 videos: 4 as made\np11 at 256: 4 videos: 4 as made\n")
    rows, paths = clips(work)
    whole = [path.read_bytes() for path in paths]
    flip(paths[0])
    assert len(video.read(paths[0], range(rows[0].frames), rows[0].frames)) == rows[0].frames
    with pytest.raises(video.VideoError, match="its content is not what the manifest has the digest of"):
        video.read(paths[0], [0], rows[0].frames, rows[0].mp4_blake2b)
    paths[1].write_bytes(whole[1][:-1])
    paths[2].unlink()
    status, said = scrub(work)
    names = [path.relative_to(work) for path in paths]
    assert status == 1
    assert said.splitlines()[:4] == [
        f"{names[0]}: damaged",
        f"{names[1]}: damaged",
        f"{names[2]}: gone",
        "p10 at 256: 4 videos: 1 as made, 2 damaged, 1 gone",
    ]
    assert said.splitlines()[5:] == [
        "--delete deletes what is damaged; then --forcerun convert makes it again, and what is gone"
    ]
    assert [path.exists() for path in paths] == [True, True, False, True]
    assert scrub(work, "--delete")[1].splitlines()[5:] == [AGAIN]
    assert [path.exists() for path in paths] == [False, False, False, True]
    done = run_demo(work, "--forcerun", "convert", "--", f"{FOLDER}.manifest.tsv")
    assert done.returncode == 0, done.stdout
    assert [path.read_bytes() for path in paths] == whole
    assert scrub(work)[0] == 0


def test_what_cannot_be_read_is_named_and_left_and_so_is_a_folder_at_work(work):
    _, paths = clips(work)
    paths[0].unlink()
    status, said = scrub(work)
    assert (status, said.splitlines()[-1]) == (1, AGAIN)
    paths[0].mkdir()
    flip(paths[1])
    paths[3].parent.rename(paths[3].parent.with_name("away"))
    paths[3].parent.touch()
    arguments = ("scrub", "--directory", work, "--configfile", REPOSITORY / "config/demo.yaml", "--delete")
    with exclusive_lock(work / "results/state/convert/256/p10", "p10"):
        done = call_command(*arguments)
        assert "p10: another run is at work on this folder" in done.stderr
    assert paths[1].exists()
    (work / "results/mp4/256/p11.manifest.tsv").unlink()
    done = call_command(*arguments)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert f"{paths[0].relative_to(work)}: unreadable: not a file" in lines
    assert f"{paths[3].relative_to(work)}: unreadable: Not a directory" in lines
    assert lines[-1] == (
        f"{AGAIN}; what cannot be read may be whole: look to the disk first; "
        "folders without manifest, which nobody looked at: 1"
    )
    assert paths[0].is_dir()
    assert not paths[1].exists()


def test_a_damaged_clip_is_a_failed_row(work):
    _, paths = clips(work)
    flip(paths[0])
    shutil.rmtree(work / "results/state/embed")
    vectors = "results/embeddings/vit-tiny_embeddings_p10.pt"
    done = run_demo(work, "--forcerun", "embed", "--", vectors, change="embed: {max_failed_fraction: 0.1}")
    assert done.returncode == 1
    assert "1 of 4 clips have no vector" in done.stdout
    assert "MP4 files are damaged: `echo-embeddings scrub` says which, and what to do" in done.stdout
    failed = (work / vectors.replace(".pt", ".failed.tsv")).read_text().splitlines()[1:]
    assert [line.split("\t")[1] for line in failed] == [video.DAMAGED]


def test_rows_without_a_digest_are_counted_and_a_collection_of_mp4_is_left_alone(work):
    rows, paths = clips(work)
    table = work / f"{FOLDER}.manifest.tsv"
    lines = [line.split("\t")[: manifest.COLUMNS_0_1_0] for line in table.read_text().splitlines()]
    table.write_text("".join("\t".join(cells) + "\n" for cells in lines))  # as version 0.1.0 wrote it
    flip(paths[0])
    status, said = scrub(work)
    assert (status, said.splitlines()[0]) == (0, "p10 at 256: 4 videos: 4 without digest")

    theirs = shutil.copytree(work / FOLDER, work / "theirs/p12")
    mine = work.parent / "config/theirs.yaml"
    mine.write_text((REPOSITORY / "config/demo.yaml").read_text() + f"mp4_dir: {theirs.parent}\n")
    unmade = "folders without manifest, which nobody looked at: 1"
    assert scrub(work, configfile=mine) == (1, f"p12 at 256: no manifest yet\n{unmade}\n")
    shutil.copy(table, work / "results/mp4/256/p12.manifest.tsv")
    (theirs / rows[0].mp4).write_bytes(b"another")
    status, said = scrub(work, "--delete", configfile=mine)
    assert status == 1
    assert said.splitlines()[-1] == (
        "the collection is yours and never changed: get these files again, and run with --forcerun probe"
    )
    assert (theirs / rows[0].mp4).read_bytes() == b"another"
