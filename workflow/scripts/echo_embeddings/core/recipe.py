"""Recipes: how a clip is shown to an encoder. Data, and numbers that follow; `embed` does what it says."""

import math
from dataclasses import dataclass, field

SAMPLINGS = ("uniform", "echojepa", "echojepa-eval", "rate", "stride")
MASKS = ("none", "echojepa-boxes", "sector")

NOMINAL_FPS = 30  # of an MP4 as EchoJEPA's training read it, and where the DICOM states no rate
ECHOJEPA_FPS = 8  # frames a second of EchoJEPA's training


@dataclass(frozen=True)
class Recipe:
    """How a model is fed. All of it but the name decides vectors."""

    name: str = field(metadata={"term": None})
    sampling: str = "uniform"  # one of `SAMPLINGS`
    stride: int | None = None  # frames from one sampled to the next, where sampling is stride
    rate: float | None = None  # sampled frames a second, where sampling is rate
    clips_per_video: int = 1  # the video is cut into as many parts, each sampled on its own; a vector is their mean
    padding: str = "last"  # of rate and stride, where a clip ends before the window: "last" frame repeated, or "loop"
    mask: str = "none"  # one of `MASKS`
    # Or "letterboxed": the DICOM's shape, with black beside or above and below; "native": its shape and all its pixels.
    aspect: str = "squeezed"
    crop: bool = True  # short side to 256/224 of the resolution and the centre of that; else all of the picture
    source: str = field(default="mp4", metadata={"neutral": "mp4"})  # or "dicom": the sampled frames, without an MP4

    @property
    def by_rate(self) -> bool:
        """Whether the rate of a video decides which of its frames are shown."""
        return self.sampling in ("echojepa", "rate")

    @property
    def antialiases(self) -> bool:
        """Whether frames larger than they are shown are smoothed as they shrink: EchoJEPA's loader does not."""
        return not self.sampling.startswith("echojepa")

    def short_side(self, resolution: int) -> int:
        """What the short side of a frame is resized to, pixels."""
        return int(256 / 224 * resolution) if self.crop else resolution

    def says(self, num_frames: int, resolution: int) -> str:
        """What is done to a clip, in words."""
        parts = f"{self.clips_per_video} clips a video, averaged, each of " if self.clips_per_video > 1 else ""
        how = {
            "uniform": f"{num_frames} frames at numpy.linspace(0, n - 1, {num_frames})",
            "echojepa": f"{num_frames} frames as EchoJEPA's training took them from frame 0 on, {ECHOJEPA_FPS} a "
            f"second at a video's rate, or at nominal {NOMINAL_FPS} of a DICOM",
            "echojepa-eval": f"{num_frames} frames as EchoJEPA's evaluations took them, from each part's start on",
            "rate": f"{num_frames} frames at {self.rate} a second of true time",
            "stride": f"{num_frames} frames, {self.stride} apart",
        }[self.sampling]
        short = f", short clips padded with {'their last frame' if self.padding == 'last' else 'a loop'}"
        bilinear = "bilinear, antialiased" if self.antialiases else "bilinear"
        pixels = (
            f"short side to {self.short_side(resolution)} pixels, {bilinear}; centre {resolution} x {resolution}"
            if self.crop
            else f"all of the picture to {resolution} x {resolution}, {bilinear}"
        )
        masked = {"none": "", "echojepa-boxes": "; EchoJEPA's boxes black", "sector": "; black outside the sector"}
        source = "straight from the DICOM: " if self.source == "dicom" else ""
        return (
            f"{source}{parts}{how}{short if self.sampling in ('rate', 'stride') else ''}; "
            f"{self.aspect}{masked[self.mask]}; {pixels}; ImageNet's mean and standard deviation; mean over all tokens"
        )


def echojepa_stride(fps: float) -> int:
    """Frames from one that EchoJEPA's training took to the next, in a video of `fps` frames a second.

    Its loader divided whole numbers: ceil(fps) // 8.
    """
    return max(1, math.ceil(float(f"{fps:.6g}")) // ECHOJEPA_FPS)  # to the digits that manifests have


# Named for good: the guide's way, the way of EchoJEPA's training, and that of its evaluations.
RECIPES = {
    "guide": Recipe("guide"),
    "echojepa": Recipe("echojepa", sampling="echojepa", mask="echojepa-boxes"),
    "echojepa-eval": Recipe("echojepa-eval", sampling="echojepa-eval", clips_per_video=2, mask="echojepa-boxes"),
}
GUIDE = RECIPES["guide"]
