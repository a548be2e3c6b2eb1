"""Rule physionet against a server of PhysioNet's manners: login, list of digests, files; and its faults."""

import base64
import hashlib
import json
import shutil
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pytest

from echo_embeddings.core.errors import UserError
from echo_embeddings.fetch import download, physionet
from testing import REPOSITORY
from testing.commands import run_demo
from testing.processes import small_disk, start_python, until
from testing.server import File, serving

AGENT = "PhysioNet-Python-Client/"  # PhysioNet lets some programs log in, and answers all others with 403
USER, PASSWORD = "echo-reader", "hunter2 & sons: s3cret"
STUDY = "files/p10/p10000001/s90000001/"


@pytest.fixture
def project(collection_dir, monkeypatch):
    """Version 1.0 of a project with the demo's collection and two tables, behind a login."""
    files = {f"files/{p.relative_to(collection_dir)}": p.read_bytes() for p in collection_dir.rglob("*.dcm")}
    files |= {"echo-record-list.csv": b"subject_id,study_id\n1,2\n", "structured-measurement.csv.gz": b"\x1f\x8b..."}
    files["LICENSE.txt"] = b"terms"
    monkeypatch.setenv("NETRC", "/nonexistent")
    monkeypatch.setenv("PHYSIONET_USERNAME", USER)
    monkeypatch.setenv("PHYSIONET_PASSWORD", PASSWORD)
    monkeypatch.setattr(download, "PAUSE", 0.001)
    with serving() as server:
        rest = {"slug": "mimic-iv-echo", "title": "", "abstract": "", "citation": ""}
        versions = [{"version": version, **rest} for version in ("0.1", "1.0")]
        server.files["/api/v1/projects/mimic-iv-echo/versions/"] = File(json.dumps(versions).encode())
        publish(server, files)
        yield server


def publish(server, files):
    listed = "".join(f"{hashlib.sha256(content).hexdigest()} {path}\n" for path, content in sorted(files.items()))
    for path, content in {**files, "SHA256SUMS.txt": listed.encode()}.items():
        server.files[address(path)] = File(content, login=(USER, PASSWORD), kind="text/plain", agent=AGENT)


def address(path):
    return f"/files/mimic-iv-echo/1.0/{path}"


@pytest.fixture
def places(tmp_path):
    return physionet.Places(tmp_path / "dicom", tmp_path / "tables", tmp_path / "state", tmp_path / "physionet.tsv")


def fetch(server, places, *include, version="1.0", name="mimic-iv-echo"):
    return physionet.fetch(physionet.Project(server.url, name, version), list(include), places)


def refused(server, places, *include, **which) -> str:
    with pytest.raises(UserError) as error:
        fetch(server, places, *include, **which)
    assert "\n" not in str(error.value)
    assert PASSWORD not in str(error.value)
    assert not places.record.exists()
    return str(error.value)


def there(directory: Path) -> set[str]:
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}


def test_tables_studies_patients_and_folders(project, places, collection_dir):
    assert fetch(project, places, "*.csv", "*.csv.gz", "s90000003", "p10000001/s90000002", "p11") == 10
    assert there(places.tables) == {"echo-record-list.csv", "structured-measurement.csv.gz"}
    everything = {str(p.relative_to(collection_dir)) for p in collection_dir.rglob("*.dcm")}
    expected = {p for p in everything if "s90000003" in p or "s90000002" in p or p.startswith("p11/")}
    assert there(places.dicom) == expected
    assert all((places.dicom / p).read_bytes() == (collection_dir / p).read_bytes() for p in expected)
    record = pd.read_csv(places.record, sep="\t")
    assert len(record) == 10
    for row in record.itertuples():
        content = Path(row.file).read_bytes()
        assert (row.bytes, row.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert there(places.state) == {"lock", "owner"}


def test_a_second_call_fetches_what_is_missing_or_damaged(project, places):
    fetch(project, places, "s90000001")
    files = sorted(there(places.dicom))
    (places.dicom / files[0]).unlink()
    damaged = places.dicom / files[1]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1])
    project.requests.clear()
    fetch(project, places, "s90000001", "files/p10/*/s90000002/*")
    asked = [path for path, _ in project.requests if path.endswith(".dcm")]
    assert {address(f"files/{name}") for name in files[:2]} <= set(asked)
    assert not any(address(f"files/{name}") in asked for name in files[2:])
    assert damaged.read_bytes() == content


def test_a_connection_that_drops_goes_on_where_it_was(project, places):
    path = address(STUDY + "90000001_0001.dcm")
    content = project.files[path].content
    project.files[path].drop, project.files[path].drops = 60_000, 2
    fetch(project, places, "90000001_0001.dcm")
    assert (places.dicom / path.split("files/")[-1]).read_bytes() == content
    starts = [int(h["Range"][6:-1]) for h in project.asked(path) if "Range" in h]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1]


def test_a_half_file_never_has_the_name_of_a_whole_one(project, places):
    path = address(STUDY + "90000001_0001.dcm")
    content = project.files[path].content
    project.files[path].drop = 60_000
    project.files[path].ranges = False
    line = refused(project, places, "s90000001")
    assert "the connection broke off" in line
    assert not any("90000001_0001" in name for name in there(places.dicom))
    project.files[path].drop = None
    project.files[path].ranges = True
    project.requests.clear()
    fetch(project, places, "s90000001")
    assert (places.dicom / path.split("files/")[-1]).read_bytes() == content
    assert "Range" in project.asked(path)[0]


def test_content_that_is_not_what_the_list_says(project, places):
    path = address(STUDY + "90000001_0001.dcm")
    project.files[path].content = project.files[path].content[::-1]
    assert "what the server sends is not what it lists" in refused(project, places, "s90000001")
    assert not any("90000001_0001" in name for name in there(places.dicom))


def test_who_asks(project, places, monkeypatch, tmp_path):
    monkeypatch.setenv("PHYSIONET_PASSWORD", "wrong")
    assert "refuses the login (401)" in refused(project, places, "*.csv")
    monkeypatch.delenv("PHYSIONET_PASSWORD")
    assert "one of the two is missing" in refused(project, places, "*.csv")
    monkeypatch.delenv("PHYSIONET_USERNAME")
    assert "wants to know who asks (401): set PHYSIONET_USERNAME" in refused(project, places, "*.csv")
    netrc = tmp_path / "netrc"
    netrc.write_text(f'machine 127.0.0.1 login {USER} password "{PASSWORD}"\n')
    monkeypatch.setenv("NETRC", str(netrc))
    assert fetch(project, places, "*.csv") == 1


def test_the_data_use_agreement(project, places):
    project.files[address("SHA256SUMS.txt")].status = 403
    page = f"{project.url}/content/mimic-iv-echo/1.0/#files"
    assert refused(project, places, "*.csv").endswith(f"(403): sign its data use agreement at {page}")
    project.files[address("SHA256SUMS.txt")].status = None
    project.files[address("echo-record-list.csv")].status = 403
    assert refused(project, places, "*.csv").endswith(f"(403): sign its data use agreement at {page}")


def test_a_version_a_project_and_names_that_are_not_there(project, places):
    assert "has no version 9.9 of mimic-iv-echo; it has 0.1, 1.0" in refused(project, places, "*.csv", version="9.9")
    assert "has no project mimic-v" in refused(project, places, "*.csv", name="mimic-v")
    assert "physionet.include: 'p99' names nothing" in refused(project, places, "*.csv", "p99")
    assert not places.dicom.exists()


def test_no_network_and_a_server_in_trouble(project, places):
    with serving() as gone:
        pass
    assert "cannot be reached" in refused(gone, places, "*.csv")
    project.files[address("echo-record-list.csv")].status = 503
    assert "503" in refused(project, places, "*.csv")


def test_a_disk_that_fills(project, places):
    with small_disk(places.state, "40k") as resize:
        line = refused(project, places, "*.csv", "90000001_0001.dcm")
        assert "bytes more and" in line
        assert "are free; make room and run again" in line
        project.files[address(STUDY + "90000001_0001.dcm")].chunked = True  # how much will come is not known before
        assert "No space left on device" in refused(project, places, "*.csv", "90000001_0001.dcm")
        assert there(places.tables) == {"echo-record-list.csv"}
        assert not there(places.dicom)
        resize("10m")
        assert fetch(project, places, "*.csv", "90000001_0001.dcm") == 2


def test_a_page_in_place_of_the_list_and_a_list_that_leads_elsewhere(project, places):
    sums = project.files[address("SHA256SUMS.txt")]
    sums.content = b"<html>\nplease log in\n</html>"
    assert "is no list of digests" in refused(project, places, "*.csv")
    sums.content = b"\x1f\x8b\xff\n"
    assert "is no list of digests" in refused(project, places, "*.csv")


def test_a_list_that_leads_elsewhere(project, places, tmp_path):
    """As that of a server which wants to write where it should not."""
    elsewhere = tmp_path / "elsewhere"
    for path in (
        f"files/{elsewhere}/x.csv",  # what is left without files/ is absolute
        f"{elsewhere}/x.csv",
        "files/../../elsewhere/x.csv",
        "../elsewhere/x.csv",
        "files/a/../../../elsewhere/x.csv",
        "files/./x.csv/..",
        "x.csv\x1b[2J",
    ):
        publish(project, {path: b"1,2\n"})
        line = refused(project, places, "*.csv*")
        assert "leads out of the project" in line
        assert line.isprintable()
        assert there(tmp_path) == {"state/lock", "state/owner"}
    project.files[address("SHA256SUMS.txt")].content = b"%s x\xff.csv\n" % (b"0" * 64)
    assert "leads out of the project" in refused(project, places, "*.csv")


def test_folders_that_are_links_of_the_users_own_are_followed(project, places, tmp_path):
    (tmp_path / "other-disk").mkdir()
    places.dicom.mkdir()
    (places.dicom / "p10").symlink_to(tmp_path / "other-disk")
    fetch(project, places, "s90000001")
    assert there(tmp_path / "other-disk")


def test_names_that_mean_something_in_an_address(project, places):
    publish(project, {"a#b?c%20d é.csv": b"1,2\n", "notes.html": b"<html>", "empty.csv": b""})
    project.files[quote(address("a#b?c%20d é.csv"))] = project.files.pop(address("a#b?c%20d é.csv"))
    project.files[address("notes.html")].kind = "text/html"
    fetch(project, places, "*.csv", "*.html")
    assert there(places.tables) == {"a#b?c%20d é.csv", "notes.html", "empty.csv"}


def test_one_connection_serves_all_files(project, places):
    fetch(project, places, "*.csv", "s90000001", "p11")
    assert len(project.requests) > 5
    assert len(project.connections) == 1


def test_the_login_goes_to_no_other_server(project, places):
    broken = address("echo-record-list.csv")
    with serving() as other:
        other.files["/x.csv"] = File(project.files[broken].content)
        project.files[broken].location = f"{other.url.replace('127.0.0.1', 'localhost')}/x.csv"
        assert fetch(project, places, "*.csv") == 1
        assert other.requests
        assert not [headers for _, headers in other.requests if "Authorization" in headers]


def test_a_login_beyond_latin_1(project, places, monkeypatch):
    monkeypatch.setenv("PHYSIONET_PASSWORD", "пароль")
    assert "refuses the login (401)" in refused(project, places, "*.csv")


def test_a_body_without_a_length_is_whole_or_not_there(project, places):
    path = address("echo-record-list.csv")
    for name in (path, address("SHA256SUMS.txt")):
        project.files[name].chunked = True
    project.files[path].drop = 10
    assert "the connection broke off" in refused(project, places, "*.csv")
    assert not places.tables.exists()
    project.files[path].drop = None
    assert fetch(project, places, "*.csv") == 1
    assert (places.tables / "echo-record-list.csv").read_bytes() == project.files[path].content


@pytest.mark.parametrize(("name", "constant"), [("SHA256SUMS.txt", "LIST"), ("echo-record-list.csv", "LARGEST")])
def test_a_body_without_an_end_is_limited(project, places, monkeypatch, name, constant):
    monkeypatch.setattr(physionet, constant, 5_000_000)
    file = project.files[address(name)]
    file.chunked = file.endless = True
    file.content = file.content * 1000
    assert "sends more than 5,000,000 bytes" in refused(project, places, "*.csv")
    assert sum(p.stat().st_size for p in places.state.rglob("*") if p.is_file()) < 5_100_000
    file.chunked = False
    file.claims = 6_000_000
    assert "has 6,000,000 bytes of it, where 5,000,000 are the most" in refused(project, places, "*.csv")


def test_a_place_that_cannot_be_written(project, places):
    places.tables.write_text("a file where the directory should be")
    assert f"File exists, {places.tables}" in refused(project, places, "*.csv")
    publish(project, {"x" * 255 + ".csv": b"1,2\n"})
    assert "File name too long" in refused(project, places, "*.csv")


@pytest.fixture
def work(project, tmp_path):
    """An empty working directory of the demo, and what to lay over its configuration."""
    (tmp_path / "config").mkdir()  # demo.yaml names the registry beside itself, relative to the working directory
    shutil.copy(REPOSITORY / "config/demo-models.yaml", tmp_path / "config")
    change = f'physionet: {{version: "1.0", url: "{project.url}", include: ["*.csv", s90000004]}}\n'
    (tmp_path / "demo").mkdir()
    return tmp_path / "demo", change


def test_the_target_from_nothing_to_dicom_dir_and_no_word_of_the_password(project, work, collection_dir):
    directory, change = work
    dry = run_demo(directory, "-n", "physionet", change=change)
    assert dry.returncode == 0, dry.stdout
    assert "rule physionet" in dry.stdout
    # Before anything is there, the rest of the workflow says so.
    rest = run_demo(directory, "-n", change=change)
    assert rest.returncode == 1
    assert "`snakemake physionet` fetches what physionet.include names" in rest.stdout.splitlines()[-1]

    broken = project.files[address("echo-record-list.csv")]
    broken.status = 403
    failed = run_demo(directory, "physionet", change=change)
    assert failed.returncode == 1
    assert "sign its data use agreement at" in failed.stdout
    assert "Traceback" not in failed.stdout
    nothing_secret(directory.parent, failed.stdout)  # the next attempt's log takes the place of this one's
    broken.status = None
    result = run_demo(directory, "physionet", change=change)
    assert result.returncode == 0, result.stdout
    study = "p11/p11000001/s90000004"
    assert there(directory / "dicom" / study) == there(collection_dir / study)
    assert there(directory / "resources/tables") == {"echo-record-list.csv"}
    then = run_demo(directory, "-n", "physionet", "results/mp4/256/p11.manifest.tsv", change=change)
    assert "rule convert" in then.stdout
    assert "rule physionet" not in then.stdout
    more = run_demo(directory, "-n", "physionet", change=change.replace("s90000004", "p11"))
    assert "Params have changed" in more.stdout
    nothing_secret(directory.parent, dry.stdout + rest.stdout + result.stdout + then.stdout)


def nothing_secret(directory, words):
    """The password is neither in `words` nor in any file that a run wrote, logs and Snakemake's own among them."""
    written = [path for path in directory.rglob("*") if path.is_file()]
    assert {"physionet.log"} <= {path.name for path in written}
    assert any(path.name.endswith("snakemake.log") for path in written)
    for secret in (PASSWORD, "s3cret", base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()):
        assert secret not in words
        assert not [path for path in written if secret.encode() in path.read_bytes()]


def test_the_version_must_be_said_and_in_quotes(project, work, collection_dir):
    directory, _ = work
    shutil.copytree(collection_dir / "p11", directory / "dicom/p11")
    result = run_demo(directory, "-n", "physionet")
    assert result.returncode == 1
    assert "physionet.version: say which version to fetch, in quotes" in result.stdout
    result = run_demo(directory, "-n", "physionet", change="physionet: {version: 1.0}")
    assert "physionet.version: 1.0 is not text or null: write it in quotes" in result.stdout


def test_killed_in_the_middle_nothing_half_is_in_dicom_dir(project, places):
    """Another process gets SIGKILL while a file comes in; the next call goes on there."""
    path = address(STUDY + "90000001_0001.dcm")
    content = project.files[path].content
    project.files[path].pause = 0.01
    code = (
        "from pathlib import Path; from echo_embeddings.fetch import physionet as p; "
        f"p.fetch(p.Project({project.url!r}, 'mimic-iv-echo', '1.0'), ['s90000001'], "
        f"p.Places(*map(Path, {[str(places.dicom), str(places.tables), str(places.state), str(places.record)]!r})))"
    )
    process = start_python("-c", code)
    staged = places.state / "mimic-iv-echo/1.0" / STUDY / "90000001_0001.dcm"
    assert until(lambda: staged.exists() and staged.stat().st_size >= 50_000, process)
    process.kill()
    process.wait()
    assert not there(places.dicom)
    have = staged.stat().st_size
    project.files[path].pause = 0
    fetch(project, places, "s90000001")
    assert project.asked(path)[-1]["Range"] == f"bytes={have}-"
    assert (places.dicom / path.split("files/")[-1]).read_bytes() == content
