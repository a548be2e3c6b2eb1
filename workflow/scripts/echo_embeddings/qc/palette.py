"""Colours that stay apart for colour-blind readers too, on white and on dark paper; see tests/test_qc_palette.py."""

# For groups: any two differ under normal, protanopic, deuteranopic and tritanopic sight, and each from the paper.
LIGHT = ("#2D4BC3", "#E17800", "#2DA596", "#C378D2", "#960F00", "#87965A", "#4B2D69", "#691E2D")
DARK = ("#8787F0", "#F05A00", "#4BFFD2", "#C35A96", "#F0D200", "#87875A", "#A5D2FF", "#D2F087")
# For parts of a range, from low to high: each is darker than the one before it, or on dark paper lighter.
LIGHT_RAMP = ("#7A9632", "#2B8A78", "#1F6A94", "#3B3F96", "#3A0F5E")
DARK_RAMP = ("#5B6FC9", "#4796C8", "#43BDB0", "#97DB7C", "#F7E84B")
