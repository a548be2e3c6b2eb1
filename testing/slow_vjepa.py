"""V-JEPA 2.1 the slow and obvious way: loops over patches, tokens, heads and channels, in float64, by NumPy alone.

Written from the description of the architecture, and shares nothing with the library but the weights' names.
"""

import math

import numpy as np


def tokens(weights, video, heads):
    """Tokens [N, D] of one `video` [3, T, H, W]; `weights` are float64 arrays as the checkpoints name them."""
    patches, positions = cut(video)
    kernel = weights["patch_embed.proj.weight"]
    kernel = kernel.reshape(len(kernel), -1)
    x = np.stack([kernel @ patch + weights["patch_embed.proj.bias"] for patch in patches])
    x = x + weights["video_mod_embed"].reshape(-1)
    turns = [angles(position, x.shape[1] // heads) for position in positions]
    depth = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("blocks."))
    for i in range(depth):
        block = {key.removeprefix(f"blocks.{i}."): w for key, w in weights.items() if key.startswith(f"blocks.{i}.")}
        x = x + attention(block, norm(x, block["norm1.weight"], block["norm1.bias"]), heads, turns)
        h = norm(x, block["norm2.weight"], block["norm2.bias"]) @ block["mlp.fc1.weight"].T + block["mlp.fc1.bias"]
        x = x + gelu(h) @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]
    return norm(x, weights["norms_block.3.weight"], weights["norms_block.3.bias"])


def cut(video):
    """Flattened patches (channel, time, row, column) of 2 x 16 x 16, and where each stands, in time, row, column."""
    _, frames, height, width = video.shape
    rows, columns = height // 16, width // 16
    patches, positions = [], []
    for t in range(frames // 2):
        for r in range(rows):
            for c in range(columns):
                patches.append(video[:, 2 * t : 2 * t + 2, 16 * r : 16 * r + 16, 16 * c : 16 * c + 16].reshape(-1))
                # Rows and columns are those of the grid of 16 that the weights were trained on; time is not rescaled.
                positions.append((t, r * 15 / (rows - 1), c * 15 / (columns - 1)))
    return patches, positions


def angles(position, head_dim):
    """The angle of each channel: neighbours share a frequency; what is left at the end is not turned."""
    share = 2 * ((head_dim // 3) // 2)
    found = []
    for channel in range(head_dim):
        axis, within = channel // share, channel % share
        frequency = 10000 ** -((within // 2) / (share / 2))
        found.append(position[axis] * frequency if axis < 3 else 0.0)
    return found


def turn(vector, by):
    """Each pair of neighbouring channels, turned by its angle."""
    out = vector.copy()
    for i in range(0, len(vector), 2):
        cos, sin = math.cos(by[i]), math.sin(by[i])
        out[i] = vector[i] * cos - vector[i + 1] * sin
        out[i + 1] = vector[i + 1] * cos + vector[i] * sin
    return out


def attention(block, x, heads, turns):
    n, dim = x.shape
    size = dim // heads
    qkv = x @ block["attn.qkv.weight"].T + block["attn.qkv.bias"]
    out = np.empty_like(x)
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        q, k, v = qkv[:, :dim][:, at], qkv[:, dim : 2 * dim][:, at], qkv[:, 2 * dim :][:, at]
        q = np.stack([turn(q[i], turns[i]) for i in range(n)])
        k = np.stack([turn(k[i], turns[i]) for i in range(n)])
        for i in range(n):
            score = k @ q[i] / math.sqrt(size)
            weight = np.exp(score - score.max())
            out[i, at] = weight @ v / weight.sum()
    return out @ block["attn.proj.weight"].T + block["attn.proj.bias"]


def norm(x, weight, bias):
    mean = x.mean(axis=1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * weight + bias


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
