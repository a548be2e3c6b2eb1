"""The methods of the scripts that this workflow replaces, to race against. Their steps are theirs: not to be tuned."""

from collections.abc import Iterator

import av
import cv2
import numpy as np
import pydicom
import torch

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None, None]
BATCH = {"vitl": 256, "vith": 128, "vitg": 64, "vitg-384": 32}  # clips, on a GPU
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None, None]


def convert(dicom_path: str, mp4_path: str, size: int = 256, fps: int = 30) -> None:
    """One DICOM clip to an MP4: the whole clip decoded, stretched in float32, resized and written as mp4v by OpenCV."""
    clip = pydicom.dcmread(dicom_path).pixel_array.astype(np.float32)
    low, high = clip.min(), clip.max()
    clip = ((clip - low) / (high - low) * 255.0).astype(np.uint8)
    writer = cv2.VideoWriter(mp4_path, cv2.VideoWriter_fourcc(*"mp4v"), fps, (size, size), isColor=True)
    for frame in clip:
        small = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
        writer.write(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR if small.ndim == 2 else cv2.COLOR_RGB2BGR))
    writer.release()


class Clips(torch.utils.data.Dataset):
    """A clip a path: decoded whole by PyAV, resized, cropped and normalised in float32 by the loader's worker."""

    def __init__(self, paths: list[str], size: int, frames: int) -> None:
        self.paths, self.size, self.frames = paths, size, frames

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[str, torch.Tensor]:
        with av.open(self.paths[i]) as video:
            video.streams.video[0].thread_count = 1
            seen = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        short = int(256 / 224 * self.size)
        edge = (short - self.size) // 2
        picked = [seen[j] for j in np.linspace(0, len(seen) - 1, self.frames, dtype=int)]
        picked = [cv2.resize(frame, (short, short), interpolation=cv2.INTER_LINEAR) for frame in picked]
        cropped = np.stack([frame[edge : edge + self.size, edge : edge + self.size] for frame in picked])
        return self.paths[i], (torch.from_numpy(cropped).permute(3, 0, 1, 2).float() / 255 - MEAN) / STD


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def embed(
    encoder: torch.nn.Module, paths: list[str], device: str, batch_size: int, workers: int, size: int, bf16: bool
) -> Iterator[dict[str, torch.Tensor]]:
    """Vectors by path, batch by batch: float32 batches, the encoder under autocast, the mean over its tokens."""
    loader = torch.utils.data.DataLoader(
        Clips(paths, size, 16),
        batch_size=batch_size,
        num_workers=workers,
        worker_init_fn=_one_thread,
        prefetch_factor=2 if workers else None,
        persistent_workers=bool(workers),
        pin_memory=device == "cuda",
    )
    for names, batch in loader:
        with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            tokens = encoder(batch.to(device, non_blocking=True))
            yield dict(zip(names, tokens.mean(dim=1).float().cpu(), strict=True))
