"""A picture of the sections of a report that say most, for README.md: screenshot.py PAGE.html OUT.png"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

SECTIONS = ("#summary", "#files", "#pictures")
WIDTH, MOST = 1240, 640  # pixels: of the window, and of a section's height
GAP = 16


def main(page: Path, output: Path) -> None:
    """Shoot the head of each section, and put them below each other."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("no chromium on this machine; on Debian: apt-get install chromium")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as directory:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        window = browser.new_page(viewport={"width": WIDTH, "height": 900})
        window.goto(page.resolve().as_uri())
        parts = []
        for i, section in enumerate(SECTIONS):
            path = Path(directory, f"{i}.png")
            window.locator(section).screenshot(path=path)
            with Image.open(path) as image:
                parts.append(image.crop((0, 0, image.width, min(MOST, image.height))).convert("RGB"))
        browser.close()
    height = sum(part.height for part in parts) + GAP * (len(parts) - 1)
    sheet = Image.new("RGB", (max(part.width for part in parts), height), "#f5f7f9")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height + GAP
    sheet.quantize(128).save(output, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
