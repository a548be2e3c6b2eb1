"""What the mask `sector` leaves of the cine and of phantoms: python -m docs.images.sector docs/images/sector.png"""

import sys
from pathlib import Path

import cv2
import numpy as np

from echo_embeddings.embed import masks
from testing import phantoms
from testing.sectors import SECTOR, as_mp4, clip_of, judge, row_of

SIZE, RED, GREEN = 256, (0, 0, 90), (0, 200, 0)


def tile(name: str, scratch: Path) -> np.ndarray:
    """The brightest that each pixel becomes; red is masked, the green line is the true sector."""
    _, picture = clip_of(name)
    seen = as_mp4(picture, SIZE, scratch)
    keep = masks.keep(SECTOR, (SIZE, SIZE), seen, row_of())
    shares = "kept {:.1%}, text gone {:.1%}".format(*judge(keep, picture))
    print(f"{name}: {shares}")
    out = np.clip(2.0 * seen.max(axis=0)[..., ::-1], 0, 255).astype(np.uint8)
    out[~keep] = out[~keep] // 2 + np.array(RED, np.uint8)
    true = cv2.resize(picture.sector.astype(np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    outline, _ = cv2.findContours(true, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, outline, -1, GREEN, 1)
    return out


if __name__ == "__main__":
    target = Path(sys.argv[1])
    scratch = target.with_suffix(".mp4")
    tiles = [tile(name, scratch) for name in ("large", "small", *phantoms.LAYOUTS)]
    scratch.unlink()
    cv2.imwrite(str(target), np.vstack([np.hstack(tiles[:4]), np.hstack(tiles[4:])]))
