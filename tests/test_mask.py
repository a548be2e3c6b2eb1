"""Masks and shapes, judged on masks that are older than they are (phantoms.py)."""

import cv2
import numpy as np
import pytest

from echo_embeddings.core.recipe import RECIPES
from echo_embeddings.embed import masks
from testing import phantoms
from testing.sectors import SECTOR, as_mp4, clip_of, judge, row_of

NOTHING = np.empty(0, np.uint8)


@pytest.mark.parametrize(
    ("name", "size"), [*((name, 256) for name in (*phantoms.LAYOUTS, "large", "small")), ("large", 224), ("small", 224)]
)
def test_the_sector_stays_and_the_text_goes(tmp_path, name, size):
    """By movement alone."""
    _, picture = clip_of(name)
    seen = as_mp4(picture, size, tmp_path / "clip.mp4")
    kept, gone = judge(masks.keep(SECTOR, (size, size), seen, row_of()), picture)
    assert kept >= 0.99
    assert gone >= 0.95
    # A mask of nothing would pass the one, and a picture of nothing the other.
    assert picture.sector.mean() > 0.2
    assert picture.text.sum() > 500


@pytest.mark.parametrize("size", [224, 256, 384])
def test_the_header_s_box_where_it_lies_in_the_picture(size):
    facts, picture = clip_of("large")
    row = row_of(frames=120, **facts)
    assert masks.overview(SECTOR, row) == []
    kept, gone = judge(masks.keep(SECTOR, (size, size), NOTHING, row), picture)
    assert kept >= 0.99
    assert gone >= 0.95


def test_the_stale_box_of_the_small_cine_is_not_used():
    facts, _ = clip_of("small")
    assert "tissue_box" not in facts
    assert len(masks.overview(SECTOR, row_of(frames=30, **facts))) == 24


def test_a_clip_in_which_nothing_moves_has_no_sector():
    still = np.full((8, 64, 64, 3), 90, np.uint8)
    with pytest.raises(masks.NoSectorError, match="nothing moves"):
        masks.sector(still)


def test_echojepa_boxes_by_hand():
    """Pixel by pixel at 640 x 480, where the fractions are whole, and corners rounded down at 224."""
    keep = masks.boxes(480, 640)
    left = [(0, 0, 60, 480), (0, 0, 90, 264), (0, 0, 77, 297), (0, 0, 130, 144), (0, 0, 150, 124), (0, 0, 220, 96)]
    right = [(420, 0, 640, 96), (495, 0, 615, 235), (510, 0, 630, 244), (525, 0, 640, 254), (550, 0, 640, 480)]
    low = [(0, 345, 105, 480), (535, 326, 640, 470), (525, 345, 630, 480), (0, 0, 640, 35), (0, 390, 640, 480)]
    expected = np.ones((480, 640), bool)
    for x0, y0, x1, y1 in left + right + low:
        expected[y0:y1, x0:x1] = False
    # Fractions such as 0.62 are not whole there: corners may be a pixel off.
    assert (keep != expected).mean() < 0.005
    small = masks.boxes(224, 224)
    assert small.shape == (224, 224)
    assert not small[: int(35 / 480 * 224)].any()
    assert small[100, 112]
    shown = masks.show(np.full((2, 224, 224, 3), 9, np.uint8), RECIPES["echojepa"], NOTHING, row_of())
    assert np.array_equal(shown[1, ..., 0], 9 * small)


@pytest.mark.parametrize(("rows", "columns"), [(480, 640), (708, 1016), (600, 400), (300, 300)])
def test_letterboxing_gives_the_shape_back(rows, columns):
    """A circle of the DICOM is a circle again, as large as it can be, and around it is black."""
    y, x = np.mgrid[:rows, :columns]
    radius = 0.4 * min(rows, columns)
    circle = ((np.hypot(x - columns / 2, y - rows / 2) < radius) * 255).astype(np.uint8)
    squeezed = cv2.resize(np.repeat(circle[..., None], 3, 2), (256, 256), interpolation=cv2.INTER_AREA)[None]
    (out,) = masks.letterbox(squeezed, rows, columns)
    inside = out[..., 0] > 127
    high, wide = np.ptp(np.where(inside.any(axis=1))) + 1, np.ptp(np.where(inside.any(axis=0))) + 1
    assert abs(high - wide) <= 2
    assert abs(wide - 2 * radius * 256 / max(rows, columns)) <= 2
    centre = np.array(np.where(inside)).mean(axis=1)
    assert np.abs(centre - 127.5).max() <= 1
