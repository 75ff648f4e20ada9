"""What all classes cost at once: a multi-head pass against one pass per class of the teacher, side by side.

Run: python benchmarks/multihead_cost.py

The two are timed in turn, several times over, so that a drift of the machine's speed hits both; ratios are of medians.
"""

import statistics
import time
from collections.abc import Callable

import torch

from rdc_bench.defenses import DiffusionClassifier
from rdc_bench.zoo.loading import load_denoiser

IMAGES, LEVELS, ROUNDS = 16, 8, 5


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def side_by_side(name: str, first: Callable[[], object], second: Callable[[], object]) -> None:
    first(), second()
    pairs = [(seconds(first), seconds(second)) for _ in range(ROUNDS)]
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"{name}: multi-head {1000 * a:.0f} ms, one pass per class {1000 * b:.0f} ms, ratio {a / b:.3f} (1/{b / a:.1f})")


def main() -> None:
    x = torch.rand(IMAGES, 1, 28, 28)
    student, teacher = (
        DiffusionClassifier(load_denoiser(f"{name}-fashion-mnist"), 10, levels=LEVELS) for name in ("multihead", "teacher")
    )

    def forward(model: DiffusionClassifier) -> Callable[[], object]:
        def call() -> None:
            with torch.no_grad():
                model(x)

        return call

    def backward(model: DiffusionClassifier) -> Callable[[], object]:
        def call() -> None:
            leaf = x.clone().requires_grad_(True)
            logits = model(leaf)
            (logits[:, 0] - logits[:, 1]).sum().backward()

        return call

    print(f"{IMAGES} images, {LEVELS} noise levels, 10 classes, {torch.get_num_threads()} threads")
    side_by_side("logits", forward(student), forward(teacher))
    side_by_side("logits and gradient of a margin", backward(student), backward(teacher))


if __name__ == "__main__":
    main()
