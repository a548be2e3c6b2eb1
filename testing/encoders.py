"""Encoders of other families by another way: drawn weights in the published layouts, and pictures in plain loops."""

import math

import cv2
import numpy as np
import scipy.ndimage
import torch
from torch import nn

from echo_embeddings.dicom.frames import decode_frames
from echo_embeddings.dicom.header import check_clip, read_header
from echo_embeddings.encoders import extras

from .corpus import CINE

ECHOPRIME_MEAN, ECHOPRIME_STD = (29.110628, 28.076836, 29.096405), (47.989223, 46.456997, 47.20083)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def draw(module: nn.Module, seed: int, gain: float = 1.5) -> nn.Module:
    """Random weights under which different videos get different vectors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(".pe"):  # which is fixed
                continue
            if parameter.dim() > 1:
                parameter.normal_(0, gain / parameter[0].numel() ** 0.5, generator=generator)
            else:
                parameter.normal_(0.0 if name.endswith("bias") else 1.0, 0.02, generator=generator)
    return module.eval().requires_grad_(False)


# --- networks ---------------------------------------------------------------------------------------


def echoprime() -> nn.Module:
    """torchvision's module with another head, as EchoPrime's own code has it."""
    network = extras.package("torchvision.models.video").mvit_v2_s()
    network.head[1] = nn.Linear(768, 512)
    return network


class PanEcho(nn.Module):
    """The parts by their names in the release, each called by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.model = extras.package("torchvision.models").convnext_tiny()
        self.encoder.model.classifier[2] = nn.Identity()
        self.transformer = nn.Module()
        layers = [nn.TransformerEncoderLayer(768, 8, 768, 0.0, batch_first=True) for _ in range(4)]
        self.transformer.layers = nn.ModuleList(layers)
        self.time_encoder = nn.Module()
        self.time_encoder.pe = nn.Parameter(torch.zeros(1, 16, 768), requires_grad=False)
        for place in range(16):
            for i in range(0, 768, 2):
                angle = place / 10000 ** (i / 768)
                self.time_encoder.pe[0, place, i] = math.sin(angle)
                self.time_encoder.pe[0, place, i + 1] = math.cos(angle)

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        vectors = []
        for clip in video:  # [3, 16, H, W]
            flat = [clip[colour, frame] for colour in range(3) for frame in range(16)]
            pictures = [torch.stack(flat[3 * i : 3 * i + 3]) for i in range(16)]
            x = torch.cat([self.encoder.model(picture[None]) for picture in pictures]) + self.time_encoder.pe[0]
            for layer in self.transformer.layers:
                x = self._layer(layer, x)
            vectors.append(x.mean(dim=0))
        return torch.stack(vectors)

    @staticmethod
    def _layer(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        attention = layer.self_attn
        q, k, v = (x @ attention.in_proj_weight.T + attention.in_proj_bias).split(768, dim=1)
        heads = []
        for i in range(8):
            own = slice(96 * i, 96 * i + 96)
            heads.append((q[:, own] @ k[:, own].T / 96**0.5).softmax(dim=1) @ v[:, own])
        x = layer.norm1(x + attention.out_proj(torch.cat(heads, dim=1)))
        return layer.norm2(x + layer.linear2(layer.linear1(x).clamp(min=0)))


class EchoClip(nn.Module):
    """timm's module and a matrix, by the names that open_clip gives them, frame by frame."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.trunk = extras.package("timm").create_model("convnext_base")
        self.visual.trunk.head.fc = nn.Identity()
        self.visual.head = nn.Module()
        self.visual.head.proj = nn.Linear(1024, 512, bias=False)

    def forward(self, frames: list[torch.Tensor]) -> torch.Tensor:
        """Pictures, each [3, 224, 224], to the mean of their directions."""
        vectors = [self.visual.trunk(frame[None])[0] @ self.visual.head.proj.weight.T for frame in frames]
        return torch.stack([vector / vector.square().sum().sqrt() for vector in vectors]).mean(dim=0)


# --- pictures ---------------------------------------------------------------------------------------


def stored(size: str) -> np.ndarray:
    """The frames of a size of the cine as its DICOM has them, RGB uint8 [n, height, width, 3]."""
    clip = check_clip(CINE[size], *read_header(CINE[size]), ())
    return np.stack(list(decode_frames(clip)))


def masked(frames: np.ndarray) -> np.ndarray:
    """Frames, RGB [n, height, width, 3], black outside EchoPrime's mask."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    lit = np.zeros(grey[0].shape, bool)
    for frame in grey:
        lit |= frame > 0
    square = np.ones((3, 3), bool)
    lit = scipy.ndimage.binary_erosion(lit, square, iterations=10, border_value=1)
    differs = grey[0] != grey[-1]
    differs[:20, :20] = False
    found = filled(scipy.ndimage.binary_dilation(lit & differs, square, iterations=10))
    drawn = found.astype(np.uint8)
    for outline in cv2.findContours(drawn.copy(), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]:
        cv2.polylines(drawn, [cv2.convexHull(outline)], True, 1, 3)
    keep = filled(drawn > 0)
    return np.stack([np.where(keep[..., None], frame, 0) for frame in frames]).astype(np.uint8)


def filled(found: np.ndarray) -> np.ndarray:
    """All that is not connected with the top left corner."""
    outside, _ = scipy.ndimage.label(~found)
    return outside != outside[0, 0]


def echoprime_input(frames: np.ndarray, mask: bool = True, bgr: bool = True) -> torch.Tensor:
    """As EchoPrime's routes prepare a clip: [1, 3, 16, 224, 224]."""
    prepared = []
    for frame in masked(frames) if mask else frames:
        height, width = frame.shape[:2]
        cut = round(abs(width - height) / 2)
        square = frame[:, cut : width - cut] if width > height else frame[cut : height - cut]
        y, x = int(square.shape[0] * 0.1), int(square.shape[1] * 0.1)
        square = square[y : square.shape[0] - y, x : square.shape[1] - x]
        small = cv2.resize(square, (224, 224), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        small = small[..., ::-1] if bgr else small
        prepared.append((small - np.float32(ECHOPRIME_MEAN)) / np.float32(ECHOPRIME_STD))
    while len(prepared) < 32:
        prepared.append(np.zeros((224, 224, 3), np.float32))
    return torch.from_numpy(np.stack(prepared[:32:2])).permute(3, 0, 1, 2)[None]


def echoclip_input(frames: np.ndarray) -> list[torch.Tensor]:
    """As EchoCLIP's example reads a video and open_clip prepares a picture: up to 20 of [3, 224, 224]."""
    prepared = []
    for frame in frames[0 : min(40, len(frames)) : 2]:
        height, width = frame.shape[:2]
        cut = round((width - height) / 2)
        square = frame[:, cut:-cut] if cut else frame
        away = round(int(height * 0.1))
        small = cv2.resize(square[away:-away, away:-away, ::-1], (224, 224), interpolation=cv2.INTER_CUBIC)
        mean, std = np.float32((0.48145466, 0.4578275, 0.40821073)), np.float32((0.26862954, 0.26130258, 0.27577711))
        prepared.append(torch.from_numpy((small.astype(np.float32) / 255 - mean) / std).permute(2, 0, 1))
    return prepared


def panecho_input(frames: np.ndarray) -> torch.Tensor:
    """As PanEcho's loader and preparation do: [1, 3, 16, 224, 224]."""
    prepared = []
    for i in range(16):
        frame = frames[min(i, len(frames) - 1)][..., ::-1]
        small = cv2.resize(np.ascontiguousarray(frame), (256, 256), interpolation=cv2.INTER_AREA)[16:240, 16:240]
        prepared.append((small.astype(np.float32) / 255 - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD))
    return torch.from_numpy(np.stack(prepared)).permute(3, 0, 1, 2)[None]
