"""Recipes: how a clip is shown to an encoder. Data only; `clip` and `mask` do what it says."""

from dataclasses import dataclass, field

SAMPLINGS = ("uniform", "echojepa", "rate", "stride")
MASKS = ("none", "echojepa-boxes", "sector")

NOMINAL_FPS = 30  # of an MP4 as EchoJEPA's training read it, and where the DICOM states no rate


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
    aspect: str = "squeezed"  # or "letterboxed": the DICOM's, with black beside or above and below
    crop: bool = True  # short side to 256/224 of the resolution and the centre of that; else all of the picture
    source: str = field(default="mp4", metadata={"neutral": "mp4"})  # or "dicom": the sampled frames, without an MP4

    def says(self, num_frames: int, resolution: int) -> str:
        """What is done to a clip, in words."""
        parts = f"{self.clips_per_video} clips a video, averaged, each of " if self.clips_per_video > 1 else ""
        how = {
            "uniform": f"{num_frames} frames at numpy.linspace(0, n - 1, {num_frames})",
            "echojepa": f"{num_frames} frames as EchoJEPA's training took them, 8 a second of nominal {NOMINAL_FPS}",
            "rate": f"{num_frames} frames at {self.rate} a second of true time",
            "stride": f"{num_frames} frames, {self.stride} apart",
        }[self.sampling]
        short = f", short clips padded with {'their last frame' if self.padding == 'last' else 'a loop'}"
        pixels = (
            f"short side to {int(256 / 224 * resolution)} pixels, bilinear; centre {resolution} x {resolution}"
            if self.crop
            else f"all of the picture to {resolution} x {resolution}, bilinear"
        )
        masked = {"none": "", "echojepa-boxes": "; EchoJEPA's boxes black", "sector": "; black outside the sector"}
        source = "straight from the DICOM: " if self.source == "dicom" else ""
        return (
            f"{source}{parts}{how}{short if self.sampling in ('rate', 'stride') else ''}; "
            f"{self.aspect}{masked[self.mask]}; {pixels}; ImageNet's mean and standard deviation; mean over all tokens"
        )


# Named for good: the guide's way, and the way of EchoJEPA's training.
RECIPES = {
    "guide": Recipe("guide"),
    "echojepa": Recipe("echojepa", sampling="echojepa", mask="echojepa-boxes"),
}
GUIDE = RECIPES["guide"]
