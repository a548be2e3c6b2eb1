"""The encoder fed with frames in memory; as a program, by a process that may have little of it.

    python -m testing.extraction FRAMES VECTORS

The encoder's widest layer takes 256 MB a clip there, and the process may have 1.5 GB more than it has at first.
"""

import resource
import sys

import torch

from echo_embeddings.embed import inference
from echo_embeddings.embed.inference import Extractor
from echo_embeddings.encoders import checkpoint
from echo_embeddings.encoders.architectures import ARCHITECTURES


def run(extractor, frames):
    """The vectors, in order, and the sizes in which they came."""
    made = list(extractor.run(enumerate(frames)))
    assert [i for places, _ in made for i in places] == list(range(len(frames)))
    return torch.cat([pooled.vectors for _, pooled in made]), [len(places) for places, _ in made]


def new(encoder, batch_size, **options):
    """An extractor on the CPU."""
    device = torch.device("cpu")
    return Extractor(encoder, device, "fp32", 32, batch_size, **options)


def main(frames: str, vectors: str) -> None:
    torch.set_num_threads(1)
    encoder = checkpoint.draw(ARCHITECTURES["vit_tiny"], 0)
    real = inference.forward

    def wide(encoder, clips, *rest):
        widest = torch.empty(len(clips), 2**28, dtype=torch.uint8)  # 256 MB a clip
        made = real(encoder, clips, *rest)
        del widest
        return made

    inference.forward = wide
    clips = torch.load(frames)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**29,) * 2)
    torch.save(run(new(encoder, 32), clips)[0], vectors)


if __name__ == "__main__":
    main(*sys.argv[1:])
