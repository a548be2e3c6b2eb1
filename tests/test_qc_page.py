"""The quality page is one file that needs no other, for any collection."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from echo_embeddings.core import manifest
from echo_embeddings.core.errors import UserError
from echo_embeddings.qc.index import make_index
from testing.qc import DIM, FACTS, Collection, Links, levels


@pytest.mark.parametrize(
    ("clips", "dim"),
    [
        *((0, DIM), (1, DIM), (2, DIM), (2, 1), (40, 1)),
        *(pytest.param(clips, dim, marks=pytest.mark.slow) for clips, dim in ((3, DIM), (1, 1), (2, 2), (40, 3))),
    ],
)
def test_few_vectors_and_dimensions_give_a_page(tmp_path: Path, clips: int, dim: int) -> None:
    numbers, html = Collection(tmp_path, clips, dim).page()
    assert numbers["vectors"] == clips
    assert levels(numbers)["Vectors"] == ("fault" if clips == 0 else "check" if clips < 3 else "good")
    assert (numbers["similarity"] is None) == ("It takes two vectors other than zero" in html) == (clips < 2)
    assert (numbers["components"] is None) == ("There are no principal components" in html) == (clips < 2)
    assert (numbers["health"]["dead"] is None) == (clips < 2)


def test_more_clips_than_the_heat_map_holds_are_sampled(tmp_path: Path) -> None:
    _, html = Collection(tmp_path, clips=250).page(pictures=False)
    assert "200 clips in the order of a clustering" in " ".join(html.split())


def test_page_is_one_file_that_asks_for_no_other(collection: Collection) -> None:
    _, html = collection.page()
    links = Links(html)
    assert links.images
    assert all(image["alt"] for image in links.images)
    assert all((image["src"] or "").startswith("data:image/") for image in links.images)
    inside = {f"#{name}" for name in links.ids}
    beside = {"index.html", "vitl.json", "../p10.manifest.tsv", "../p11.manifest.tsv"}
    assert {address for address in links.addresses if not address.startswith("data:")} <= inside | beside
    assert not {"iframe", "object", "base"} & set(links.tags)
    assert links.tags.count("script") == 3
    assert "url(" not in html
    assert "@import" not in html
    assert len(links.ids) == len(set(links.ids))
    assert links.tags.count("section") == 11


def test_same_input_gives_the_same_bytes(collection: Collection) -> None:
    assert collection.page(pictures=False) == collection.page(pictures=False)


def test_names_are_escaped(collection: Collection) -> None:
    evil = "<script>alert(1)</script>.mp4"
    collection.folders["p10"][:2] = [evil, "$\\frac$ & co.mp4"]
    collection.embedded[:2] = collection.folders["p10"][:2]
    collection.matrix[:2] = np.nan
    collection.failed["p10"] = {"<script>2": "<script>3"}
    collection.runs["p10"] |= {"device": "<script>4", "weights": "<script>5", "model": "<script>6"}
    collection.folders["<script>7"] = ["x.mp4"]
    numbers, html = collection.page(model="vitl$^$")
    assert html.count("<script") == 3
    assert evil in numbers["health"]["nan"]
    index = collection.root / "qc/index.html"
    page, vectors = index.with_name("vitl$^$.html"), collection.root / "all.pt"
    facts = FACTS | {"licence": "<script>9"}
    make_index({"<script>8": page}, {"<script>8": vectors}, index, {"<script>8": facts})
    assert index.read_text().count("<script") == 1


def test_index_compares_the_models_and_links_to_their_pages(collection: Collection) -> None:
    numbers = collection.numbers()
    output = collection.root / "index.html"
    page, vectors = collection.root / "qc/vitl.html", collection.root / "all.pt"
    page.parent.mkdir()
    page.with_suffix(".json").write_text(json.dumps(numbers))  # which the index reads, and no page
    make_index({"vitl": page}, {"vitl": vectors}, output, {"vitl": FACTS})
    html = output.read_text()
    assert Links(html).addresses == ["data:,", "qc/vitl.html"]
    assert f"{numbers['summary']['norm_mean']:.4g}" in html
    assert f"{numbers['summary']['effective_rank']:.4g}" in html
    for heading, fact in FACTS.items():
        assert f'scope="col">{heading}</th>' in html
        assert f'<td class="text">{fact}</td>' in html
    make_index({}, {}, output, {})
    assert "There is no model to show." in output.read_text()


def test_index_stops_on_a_page_without_numbers(collection: Collection) -> None:
    with pytest.raises(UserError, match=r"vitl\.json"):
        make_index({"vitl": collection.root / "vitl.html"}, {}, collection.root / "index.html", {"vitl": FACTS})


def test_hashed_names_hide_every_file(collection: Collection) -> None:
    lost = collection.folders["p11"][-1]
    collection.embedded.pop()
    collection.matrix = collection.matrix[:-1]
    collection.matrix[5] = collection.matrix[14]
    collection.matrix[1, 2] = np.nan
    collection.others = [
        manifest.Row("p10000001/odd.dcm", "", manifest.FAILED, "empty file"),
        manifest.Row("p10000001/one.dcm", "", manifest.FAILED, "name collision with p10000001/zebra"),
    ]
    numbers, html = collection.page(hash_names=True)
    drawn = [base64.b64decode(found).decode() for found in re.findall(r"svg\+xml;base64,([^\"]+)", html)]
    assert drawn
    text = re.sub(r"base64,[^\"]+", "", "".join([html, json.dumps(numbers), *drawn]))
    names = ["p10000001", "p11000001", "/s9", "_0001", "odd.dcm", "one.dcm", "zebra"]
    assert not [name for name in [*collection.embedded, lost, *names] if name in text]
    assert "name collision" in html
    short = "#" + hashlib.sha256(collection.embedded[1].encode()).hexdigest()[:10]
    assert numbers["health"]["nan"] == [short]
    assert short in html


def test_pictures_can_be_left_out_and_say_why_there_is_none(collection: Collection) -> None:
    numbers, html = collection.page()
    reasons = {s["reason"] for g in numbers["galleries"] for row in g["rows"] for s in row["strips"]}
    assert reasons == {"no such file"}
    assert "no picture: no such file" in html
    numbers, html = collection.page(pictures=False)
    assert numbers["galleries"] == []
    assert "Pictures are left out" in html


def test_pictures_come_from_the_clips(collection: Collection, write_video: Any) -> None:
    for folder, keys in collection.folders.items():
        for i, key in enumerate(keys):
            write_video(f"{folder}/{key}", frames=16, seed=i)
    numbers, html = collection.page()
    strips = [strip for gallery in numbers["galleries"] for row in gallery["rows"] for strip in row["strips"]]
    assert {gallery["title"] for gallery in numbers["galleries"]} == {"Farthest clips", "Typical clips", "Neighbours"}
    assert not any(strip["reason"] for strip in strips)
    assert html.count("data:image/jpeg;base64,") == len(strips) + 20  # and one of each clip on the plane
    strip = re.search(r"data:image/jpeg;base64,([^\"]+)", html)
    assert strip
    image = cv2.imdecode(np.frombuffer(base64.b64decode(strip[1]), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (112, 4 * 112 + 3 * 2, 3)
    assert image.std() > 20
