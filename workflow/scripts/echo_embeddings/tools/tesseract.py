"""Where the program tesseract is, which reads text in pictures: an optional one. Rules ask, and import no more."""

import shutil

from ..core.errors import UserError

PROGRAM = "tesseract"


def check() -> str:
    """The path of the program. Raises `UserError` where there is none."""
    path = shutil.which(PROGRAM)
    if path is None:
        raise UserError(
            f"audit_text: there is no program {PROGRAM}, which reads the text: apt-get install tesseract-ocr"
        )
    return path
