"""Peak memory of one RDC gradient at 8 and at 64 noise levels, the same rows per pass.

Run: python benchmarks/gradient_memory.py

Each measurement is a process of its own, because a process never gives its peak back. Memory is the growth of the peak resident
set from the loaded model to the finished gradient.
"""

import resource
import subprocess
import sys

import torch

IMAGES, ROWS = 16, 64


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(levels: int) -> float:
    from rdc_bench.defenses import RDC, DiffusionClassifier, LikelihoodMaximization
    from rdc_bench.zoo.loading import load_denoiser

    denoiser = load_denoiser("multihead-fashion-mnist")
    maximization = LikelihoodMaximization(denoiser, steps=5, rows_per_pass=ROWS)
    model = RDC(maximization, DiffusionClassifier(denoiser, 10, levels=levels, rows_per_pass=ROWS))
    x = torch.rand(IMAGES, 1, 28, 28, requires_grad=True)
    before = peak_mib()
    model(x)[:, 0].sum().backward()
    return peak_mib() - before


def main() -> None:
    if len(sys.argv) > 1:
        print(measure(int(sys.argv[1])))
        return
    few, many = (
        float(subprocess.run([sys.executable, __file__, str(t)], check=True, capture_output=True, text=True).stdout)
        for t in (8, 64)
    )
    print(f"one RDC gradient, {IMAGES} images, {ROWS} rows per pass, exact through 5 maximisation steps")
    print(f"T' =  8: {few:7.1f} MiB")
    print(f"T' = 64: {many:7.1f} MiB")
    print(f"ratio 64 / 8: {many / few:.3f}")


if __name__ == "__main__":
    main()
