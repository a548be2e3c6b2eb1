"""A page in a headless Chromium that is watched: what goes wrong in it, and what it asks for."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def opened(browser: Any, path: Path, **options: Any) -> Iterator[Any]:
    """The page at `path`, in a context with these `options`: nothing may have gone wrong or been asked for."""
    faults: list[str] = []
    own = path.resolve().as_uri()

    def asked(request: Any) -> None:
        if not request.url.startswith((own, "data:")):
            faults.append(request.url)

    context = browser.new_context(**options)
    page = context.new_page()
    page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", asked)
    page.goto(own)
    try:
        yield page
    finally:
        context.close()
    assert faults == []
