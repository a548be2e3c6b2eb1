"""The methods of the scripts that this workflow replaces, to race against. Their steps are theirs: not to be tuned."""

import cv2
import numpy as np
import pydicom


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
