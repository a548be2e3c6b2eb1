"""What is sector and what is text: drawn by hand on the real cine, and known exactly of drawn phantoms.

These masks are older than the algorithm that they judge. testing/data/sector.json holds the hand-drawn one, in pixels
of the large cine; the small one is its first 30 frames at half size. Phantoms are drawn here: speckle that moves,
shadows that hardly do, and around them what scanners write: text, bars, ticks, an ECG that runs, a number that changes.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

WHITE, GREY = (230, 230, 230), (120, 120, 120)
DRAWN = json.loads((Path(__file__).parent / "data/sector.json").read_text())


@dataclass
class Picture:
    frames: np.ndarray  # uint8 [n, rows, columns, 3]
    sector: np.ndarray  # bool [rows, columns]
    text: np.ndarray  # bool [rows, columns]: pixels of letters, bars and traces in any frame


def of_cine(frames: np.ndarray) -> Picture:
    """The hand-drawn masks for the frames of either size of the cine."""
    rows, columns = frames.shape[1:3]
    scale = columns / DRAWN["columns"]
    sector = np.zeros((rows, columns), np.uint8)
    cv2.fillPoly(sector, [np.round(np.array(DRAWN["sector"]) * scale).astype(np.int32)], 1)
    boxes = np.zeros((rows, columns), bool)
    for x0, y0, x1, y1 in DRAWN["text"]:
        boxes[int(y0 * scale) : int(y1 * scale), int(x0 * scale) : int(x1 * scale)] = True
    return Picture(frames, sector.astype(bool), boxes & (frames.max(axis=(0, 3)) > 25) & ~sector.astype(bool))


def fan(shape, apex, near, far, middle, half):
    """A sector or a convex array's field: angles in degrees, 90 points down."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    radius = np.hypot(x - apex[0], y - apex[1])
    angle = np.degrees(np.arctan2(y - apex[1], x - apex[0]))
    return (radius >= near) & (radius <= far) & (np.abs(angle - middle) <= half)


def box(shape, x0, y0, x1, y1):
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


# Layout: rows and columns, the fields, where letters stand, whether an ECG runs along the bottom.
LAYOUTS = {
    "phased": ((600, 800), [((400, 40), 18, 470, 90, 42)], [(10, 30), (10, 60), (690, 60), (690, 300)], True),
    "convex": ((708, 1016), [((520, -60), 150, 640, 90, 33)], [(12, 40), (12, 80), (880, 120), (880, 420)], True),
    "linear": ((480, 640), [(170, 60, 470, 430)], [(8, 20), (8, 60), (500, 60), (500, 420), (180, 460)], False),
    "off-centre": ((576, 720), [((250, 60), 10, 400, 90, 38)], [(8, 24), (560, 40), (560, 80), (540, 500)], True),
    "upside down": ((600, 800), [((400, 560), 14, 470, -90, 40)], [(10, 30), (10, 60), (680, 60), (10, 560)], False),
    "two planes": (
        (600, 800),
        [((185, 60), 12, 310, 90, 36), ((575, 60), 12, 310, 90, 36)],
        [(10, 30), (360, 40), (740, 40), (300, 560)],
        True,
    ),
}  # fmt: skip


def draw(name: str, count: int = 24) -> Picture:
    """The phantom of a layout."""
    shape, fields, words, ecg = LAYOUTS[name]
    rng = np.random.default_rng(0)
    parts = [box(shape, *field) if len(field) == 4 else fan(shape, *field) for field in fields]
    sector = np.logical_or.reduce(parts)
    overlay, static = _overlay(shape, words)
    frames = np.zeros((count, *shape, 3), np.uint8)
    text = static.copy()
    tissue, shadow = _tissue(shape, parts, rng)
    for i in range(count):
        speckle = _noise(shape, rng, 6) * 0.5 + _noise(shape, rng, 2) * 0.5
        beat = np.roll(tissue, round(6 * np.sin(2 * np.pi * i / count)), axis=0)
        grey = np.clip(shadow * beat * (0.6 + 0.5 * speckle) + (1 - shadow) * (4 + 3 * speckle), 0, 255)
        frame = np.repeat((grey * sector).astype(np.uint8)[..., None], 3, axis=2)
        moving = np.zeros((*shape, 3), np.uint8)
        if ecg:
            _ecg(moving, i, count)
        cv2.putText(
            moving, f"{68 + i % 5} bpm", (shape[1] - 120, shape[0] - 60), cv2.FONT_HERSHEY_SIMPLEX, 0.6, WHITE, 1
        )
        written = np.maximum(overlay, moving)
        written[sector] = 0
        frames[i] = np.maximum(frame, written)
        text |= written.max(axis=2) > 25
    return Picture(frames, sector, text & ~sector)


def _noise(shape, rng, grain):
    small = rng.rayleigh(1, (shape[0] // grain + 1, shape[1] // grain + 1)).astype(np.float32)
    return cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def _tissue(shape, parts, rng):
    """Brightness of tissue, and a weight that falls to nothing in a shadow along one side of each field."""
    bright = 30 + 90 * _noise(shape, rng, 48) * (_noise(shape, rng, 90) > 0.8)
    shadow = np.ones(shape, np.float32)
    for part in parts:
        columns = np.where(part.any(axis=0))[0]
        edge = columns[0] + 0.22 * (columns[-1] - columns[0])
        weight = np.clip((np.arange(shape[1]) - edge) / 40, 0, 1)[None, :].repeat(shape[0], 0)
        shadow[part] = weight[part]
    return bright, shadow


def _overlay(shape, words):
    """Letters, a bar of grey levels, depth ticks and a toolbar; and where they are."""
    picture = np.zeros((*shape, 3), np.uint8)
    for i, (x, y) in enumerate(words):
        cv2.putText(
            picture,
            ("TIS 0.7", "Gen THI", "MI 1.2", "18 cm", "S5-1")[i],
            (x, y),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.6,
            WHITE,
            1,
        )
    picture[80:280, shape[1] - 24 : shape[1] - 10] = np.linspace(255, 0, 200)[:, None, None]
    for y in range(60, shape[0] - 60, 25):
        picture[y : y + 2, shape[1] - 40 : shape[1] - 32] = GREY
    picture[shape[0] - 26 : shape[0] - 4, 60:-60] = (40, 45, 60)
    return picture, picture.max(axis=2) > 25


def _ecg(picture, i, count):
    """A trace that is drawn anew from left to right, with a gap that runs ahead."""
    rows, columns = picture.shape[:2]
    x = np.arange(60, columns - 160)
    phase = (x - 60) / 110 % 1
    y = rows - 70 - 28 * np.exp(-(((phase - 0.5) / 0.03) ** 2)) - 6 * np.exp(-(((phase - 0.75) / 0.08) ** 2))
    head = 60 + (columns - 220) * i / count
    shown = (x < head) | (x > head + 40)
    for one, next_one in zip(np.flatnonzero(shown)[:-1], np.flatnonzero(shown)[1:], strict=True):
        if next_one == one + 1:
            cv2.line(picture, (x[one], int(y[one])), (x[next_one], int(y[next_one])), (60, 220, 60), 1)
