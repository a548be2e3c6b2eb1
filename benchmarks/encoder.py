"""The encoder against `transformers.VJEPA2Model` (sdpa): same weights, same precision, one run.

    python -m benchmarks.encoder                        all models of the registry, on the GPU if there is one
    python -m benchmarks.encoder --models vitl --precision fp32 bf16 --device cpu

Prints clips a second, the share of the rate that a large matrix product reaches on the same device, and the ratio
to transformers, uncompiled and compiled: the median over rounds in which all take turns. What transformers does not
know, V-JEPA 2.1 and the encoders of other families, runs alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.common import QUICK, machine, synchronize
from echo_embeddings.core import configuration, settings
from echo_embeddings.embed.inference import DTYPES, blocks_of
from echo_embeddings.encoders import checkpoint, contract
from echo_embeddings.encoders.architectures import FAMILIES
from echo_embeddings.encoders.vjepa import Encoder
from testing import oracle


def seconds(device: str, work: Callable[[], object]) -> float:
    """What one call takes."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def matrix_peak(device: str, dtype: torch.dtype, edge: int) -> float:
    """Operations a second of the best of several products of two square matrices."""
    a, b = (torch.randn(edge, edge, device=device).to(dtype) for _ in range(2))
    a @ b
    return 2 * edge**3 / min(seconds(device, lambda: a @ b) for _ in range(10))


@torch.inference_mode()
def race(
    name: str,
    encoder: nn.Module,
    work: float | None,
    shape: tuple[int, ...],
    precision: str,
    device: str,
    runs: int,
    peak: float,
) -> None:
    """All contenders in turn, `runs` times, and what came of it: of batches [B, 3, T, H, W], `work` FLOP a clip."""
    dtype, batch = DTYPES[precision], shape[0]
    theirs = None
    if isinstance(encoder, Encoder) and encoder.architecture.family == FAMILIES["vjepa2"]:
        architecture = encoder.architecture
        theirs = oracle.transformers_encoder(
            encoder.state_dict(),
            architecture.embed_dim,
            architecture.depth,
            architecture.heads,
            architecture.mlp_ratio,
            shape[-1],
        )
        theirs.predictor = None  # which has no weights here and is not asked
        theirs = theirs.to(device, dtype)
    encoder = encoder.to(device, dtype)
    video = torch.randn(shape, device=device).to(dtype)

    def through(model: nn.Module) -> Tensor:
        tokens: Tensor = model(pixel_values_videos=video.transpose(1, 2), skip_predictor=True).last_hidden_state
        return tokens

    def uncompiled() -> Tensor:
        with torch.compiler.set_stance("force_eager"):
            made: Tensor = encoder(video)
            return made

    contenders: dict[str, Callable[[], Tensor]] = {"ours": uncompiled}
    if theirs:
        contenders["transformers"] = lambda: through(theirs)
    blocks = blocks_of(encoder)
    if device == "cuda" and blocks:
        for block in blocks:  # as the extraction does
            block.compile(dynamic=False)
        contenders["ours, compiled"] = lambda: encoder(video)
        if theirs:
            compiled = torch.compile(theirs, dynamic=False)
            contenders["transformers, compiled"] = lambda: through(compiled)
    for contender, run in contenders.items():
        first = seconds(device, run)
        if "compiled" in contender:
            print(f"  {contender}: first batch after {first:.1f} s")
    apart = ""
    if theirs:
        a, b = (contenders[k]().float().mean(dim=1) for k in ("ours", "transformers"))
        apart = f"vectors {float((a - b).norm() / b.norm()):.1e} apart, "
    taken: dict[str, list[float]] = {contender: [] for contender in contenders}
    for _ in range(runs):
        for contender, run in contenders.items():
            taken[contender].append(seconds(device, run))
    cost = f"{work / 1e12:.2f} TFLOP a clip, " if work else ""
    print(f"{name} {precision}, batches of {batch}, {cost}{apart}median of {runs} rounds")
    for contender, times in taken.items():
        rate = batch / statistics.median(times)
        share = f"{100 * rate * work / peak:5.1f} % of the peak" if work else ""
        against = [
            f"{statistics.median(t / o for t, o in zip(taken[other], times, strict=True)):.2f} x {other}"
            for other in taken
            if contender.startswith("ours") and other.startswith("transformers")
        ]
        print(f"  {contender:24s} {rate:8.3f} clips/s  {share}  {', '.join(against)}", flush=True)


def main() -> None:
    config = configuration.defaults()
    registry = configuration.check(config, data=False)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(registry), choices=list(registry), metavar="MODEL")
    parser.add_argument("--precision", nargs="+", default=["bf16"], choices=list(DTYPES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cuda", "cpu"])
    parser.add_argument("--batch", type=int, help="clips a batch; 32 on a GPU, 1 on a CPU")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a small encoder, to see that it works")
    arguments = parser.parse_args()
    print(machine())
    batch = arguments.batch or (32 if arguments.device == "cuda" else 1)
    for precision in arguments.precision:
        edge = 512 if arguments.quick else 8192 if arguments.device == "cuda" else 2048
        peak = matrix_peak(arguments.device, DTYPES[precision], edge)
        print(f"a product of two {edge} x {edge} matrices in {precision}: {peak / 1e12:.2f} TFLOP/s")
        if arguments.quick:
            tiny, work = checkpoint.draw(QUICK, 0), QUICK.flop(16, 64)
            race("vit_tiny of 2 blocks", tiny, work, (batch, 3, 16, 64, 64), precision, arguments.device, 3, peak)
            continue
        for name in arguments.models:
            model = settings.model(config, registry, name)
            encoder = contract.code(model).build(model).eval().requires_grad_(False)
            if isinstance(encoder, Encoder):
                encoder = checkpoint.draw(encoder.architecture, 0)
            size, shape = contract.size(model), (batch, 3, model.num_frames, model.resolution, model.resolution)
            work = size.flop if size else None
            race(name, encoder, work, shape, precision, arguments.device, arguments.runs, peak)


if __name__ == "__main__":
    main()
