"""The independent way to a vector: `transformers`' encoder, PyAV's decoder, OpenCV's resize, in float32."""

import contextlib
import importlib

import av
import cv2
import numpy as np
import torch

from echo_embeddings.encoders import extras


def transformers():
    """The package, imported where it is used: it takes seconds, in all of pytest's processes."""
    with contextlib.suppress(ModuleNotFoundError):  # it imports torchvision, where there is one
        extras.torchvision()
    return importlib.import_module("transformers")


def transformers_encoder(state: dict[str, torch.Tensor], embed_dim, depth, heads, mlp_ratio, resolution):
    """`transformers.VJEPA2Model` with the weights `state`, as the official checkpoints name them."""
    config = transformers().VJEPA2Config(
        hidden_size=embed_dim, num_hidden_layers=depth, num_attention_heads=heads, mlp_ratio=mlp_ratio,
        crop_size=resolution, frames_per_clip=16, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers().VJEPA2Model(config).eval()
    renamed = {}
    for key, tensor in state.items():
        name = key.replace("patch_embed.", "embeddings.patch_embeddings.").replace("blocks.", "layer.")
        name = (
            name.replace("norm.", "layernorm.") if name.startswith("norm.") else name.replace(".attn.", ".attention.")
        )
        if ".qkv." in name:
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[name.replace("qkv", part)] = piece
        else:
            renamed[name] = tensor
    missing, unexpected = model.encoder.load_state_dict(renamed, strict=False, assign=True)
    assert not missing
    assert not unexpected
    return model


def tokens(model, video):
    """Tokens [B, N, D] of `video` [B, 3, T, H, W]."""
    with torch.inference_mode():
        return model(pixel_values_videos=video.transpose(1, 2), skip_predictor=True).last_hidden_state


def model_input(path, resolution, frames=16):
    """The guide's preprocessing of an MP4, float32 [1, 3, frames, resolution, resolution]."""
    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    short = int(256 / 224 * resolution)
    edge = (short - resolution) // 2
    picked = [decoded[i].astype(np.float32) for i in np.linspace(0, len(decoded) - 1, frames, dtype=int)]
    picked = [cv2.resize(frame, (short, short), interpolation=cv2.INTER_LINEAR) for frame in picked]
    array = np.stack([frame[edge : edge + resolution, edge : edge + resolution] for frame in picked])
    clip = torch.from_numpy(array).permute(3, 0, 1, 2)[None] / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1, 1)
    return (clip - mean) / std
