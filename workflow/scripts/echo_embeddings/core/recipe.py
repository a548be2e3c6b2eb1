"""Recipes: how a clip is shown to an encoder. Data, and numbers that follow; `embed` does what it says."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

SAMPLINGS = ("uniform", "echojepa", "echojepa-eval", "rate", "stride")
MASKS = ("none", "echojepa-boxes", "sector", "echoprime")
# How frames are resized: by torch where the encoder runs, as V-JEPA's own transforms do, or on 8 bits by OpenCV (cubic,
# area) or Pillow (bicubic, which it antialiases), as others do.
INTERPOLATIONS = ("bilinear", "cubic", "area", "bicubic")

# ImageNet's statistics of RGB in 0..1, as most encoders are trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# CLIP's, likewise.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

NOMINAL_FPS = 30  # of an MP4 as EchoJEPA's training read it, and where the DICOM states no rate
ECHOJEPA_FPS = 8  # frames a second of EchoJEPA's training


def _later(neutral: Any) -> Any:
    """A field that came later, with the value that stands for what was done before."""
    return field(default=neutral, metadata={"neutral": neutral})


@dataclass(frozen=True)
class Recipe:
    """How a model is fed. All of it but the name decides vectors."""

    name: str = field(metadata={"term": None})
    sampling: str = "uniform"  # one of `SAMPLINGS`
    stride: int | None = None  # frames from one sampled to the next, where sampling is stride
    rate: float | None = None  # sampled frames a second, where sampling is rate
    clips_per_video: int = 1  # the video is cut into as many parts, each sampled on its own; a vector is their mean
    # Of rate and stride, where a clip ends before the window: "last" frame repeated, "loop", or "zeros", added after
    # normalising.
    padding: str = "last"
    mask: str = "none"  # one of `MASKS`
    # Or "letterboxed": the DICOM's shape, with black beside or above and below; "native": its shape and all its pixels.
    aspect: str = "squeezed"
    # Short side to 256/224 of the resolution, or to this part of it, and the centre of that; else all of the picture.
    crop: bool | float = True
    source: str = _later("mp4")  # or "dicom": the sampled frames, without an MP4
    frames: int | None = _later(None)  # that a clip has; None: embed.num_frames
    margin: float | None = _later(None)  # of the centre square, cut off on each side; None: no square is cut out
    interpolation: str = _later("bilinear")  # one of `INTERPOLATIONS`
    stretched: bool = _later(True)  # of DICOM without an MP4: brightness to 0..255; else as stored, if of 8 bits
    channels: str = _later("rgb")  # or "bgr": the order that the encoder is given
    mean: tuple[float, ...] = _later(IMAGENET_MEAN)  # of the channels in that order
    std: tuple[float, ...] = _later(IMAGENET_STD)
    white: int = _later(1)  # or 255: what 255 is in the units of mean and std
    precision: str | None = _later(None)  # "fp32" where the encoder demands it; None: embed.precision

    @property
    def by_rate(self) -> bool:
        """Whether the rate of a video decides which of its frames are shown."""
        return self.sampling in ("echojepa", "rate")

    @property
    def antialiases(self) -> bool:
        """Whether frames larger than they are shown are smoothed as they shrink: EchoJEPA's loader does not."""
        return not self.sampling.startswith("echojepa")

    @property
    def resized_early(self) -> bool:
        """Whether frames are resized when they are read, and not where the encoder runs."""
        return self.interpolation != "bilinear"

    @property
    def own_pixels(self) -> bool:
        """Whether frames are read as they are, and not squeezed to the encoder's input beforehand."""
        return self.aspect == "native" or self.margin is not None or self.resized_early

    def short_side(self, resolution: int) -> int:
        """What the short side of a frame is resized to, pixels."""
        if isinstance(self.crop, bool):
            return int(256 / 224 * resolution) if self.crop else resolution
        return int(resolution / self.crop)

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
        padding = {
            "last": "their last frame",
            "loop": "a loop",
            "zeros": "zeros after normalising",
        }
        short = f", short clips padded with {padding[self.padding]}"
        smooth = {
            "bilinear": "bilinear, antialiased" if self.antialiases else "bilinear",
            "cubic": "cubic (OpenCV)",
            "area": "by area (OpenCV)",
            "bicubic": "bicubic (Pillow)",
        }[self.interpolation]
        pixels = (
            f"short side to {self.short_side(resolution)} pixels, {smooth}; centre {resolution} x {resolution}"
            if self.crop
            else f"all of the picture to {resolution} x {resolution}, {smooth}"
        )
        if self.margin is not None:
            pixels = f"centre square less {self.margin:.0%} on each side; {pixels}"
        masked = {
            "none": "",
            "echojepa-boxes": "; EchoJEPA's boxes black",
            "sector": "; black outside the sector",
            "echoprime": "; black outside EchoPrime's mask",
        }
        source = "straight from the DICOM: " if self.source == "dicom" else ""
        stored = "" if self.stretched else "; brightness as stored"
        return (
            f"{source}{parts}{how}{short if self.sampling in ('rate', 'stride') else ''}; "
            f"{self.aspect}{masked[self.mask]}{stored}; {pixels}; {self._statistics()}"
        )

    def _statistics(self) -> str:
        """The statistics and the order of channels, in words."""
        if (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD):
            words = "ImageNet's mean and standard deviation"
        else:
            mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
            words = f"mean {mean}, standard deviation {std} of values in 0 to {self.white}"
        return words if self.channels == "rgb" else f"channels in the order {self.channels.upper()}; {words}"


def echojepa_stride(fps: float) -> int:
    """Frames from one that EchoJEPA's training took to the next, in a video of `fps` frames a second.

    Its loader divided whole numbers: ceil(fps) // 8.
    """
    return max(1, math.ceil(float(f"{fps:.6g}")) // ECHOJEPA_FPS)  # to the digits that manifests have


_ECHOPRIME = Recipe(
    "echoprime", sampling="stride", stride=2, frames=16, padding="zeros", mask="echoprime", aspect="native", crop=False,
    margin=0.1, interpolation="cubic", stretched=False, channels="bgr", precision="fp32", white=255,
    mean=(29.110628, 28.076836, 29.096405), std=(47.989223, 46.456997, 47.20083),
)  # fmt: skip

# Named for good: the guide's way, the way of EchoJEPA's training and that of its evaluations; EchoPrime's two ways, of
# DICOM and of MP4; PanEcho's, whose window starts at random in training; EchoCLIP's; and that of DINOv2 in timm.
RECIPES = {
    "guide": Recipe("guide"),
    "echojepa": Recipe("echojepa", sampling="echojepa", mask="echojepa-boxes"),
    "echojepa-eval": Recipe("echojepa-eval", sampling="echojepa-eval", clips_per_video=2, mask="echojepa-boxes"),
    "echoprime": _ECHOPRIME,
    "echoprime-mp4": replace(_ECHOPRIME, name="echoprime-mp4", mask="none", channels="rgb"),
    "panecho": Recipe(
        "panecho",
        sampling="stride",
        stride=1,
        frames=16,
        interpolation="area",
        stretched=False,
        channels="bgr",
        precision="fp32",
    ),
    "echoclip": replace(
        _ECHOPRIME, name="echoclip", mask="none", frames=20, precision=None, white=1, mean=CLIP_MEAN, std=CLIP_STD
    ),
    "frames": Recipe("frames", interpolation="bicubic", crop=False),
}
GUIDE = RECIPES["guide"]
