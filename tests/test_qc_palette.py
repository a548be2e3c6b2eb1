"""The colours of groups stay apart for colour-blind readers, and from the paper; measured by the CIE's L*a*b*."""

import itertools

import numpy as np
import pytest

from echo_embeddings.qc import palette

# Machado, Oliveira and Fernandes 2009, full severity: on linear sRGB
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)
PAPERS = {"light": "#FFFFFF", "dark": "#181D24"}


def linear(colour):
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(colour, sight="normal"):
    xyz = TO_XYZ @ np.clip(SIGHTS[sight] @ linear(colour), 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one, other):
    light, dark = sorted((float(TO_XYZ[1] @ linear(colour)) for colour in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def nearest(colours, sight):
    """How far apart the two are that are most alike."""
    return min(np.linalg.norm(lab(a, sight) - lab(b, sight)) for a, b in itertools.combinations(colours, 2))


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("colours", [palette.LIGHT, palette.DARK], ids=PAPERS)
def test_any_two_colours_of_groups_differ(colours, sight):
    apart = {
        pair: np.linalg.norm(lab(pair[0], sight) - lab(pair[1], sight)) for pair in itertools.combinations(colours, 2)
    }
    assert min(apart.values()) > 22, min(apart, key=lambda pair: apart[pair])


def test_two_colours_of_the_pages_before_were_alike():
    """So this test can fail: by these ten the pages were drawn in 0.1.0."""
    before = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D", "#882255", "#999933")
    assert nearest((*before, "#332288"), "deuteranopia") < 10


@pytest.mark.parametrize(("colours", "paper"), [(palette.LIGHT, PAPERS["light"]), (palette.DARK, PAPERS["dark"])])
def test_symbols_stand_out_from_the_paper(colours, paper):
    assert min(contrast(colour, paper) for colour in colours) >= 2.9


@pytest.mark.parametrize(("ramp", "step"), [(palette.LIGHT_RAMP, -1), (palette.DARK_RAMP, 1)], ids=PAPERS)
def test_parts_of_a_range_are_in_order_for_every_sight(ramp, step):
    for sight in SIGHTS:
        assert (step * np.diff([lab(colour, sight)[0] for colour in ramp]) > 4).all(), sight
