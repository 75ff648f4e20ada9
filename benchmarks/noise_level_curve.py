"""Clean and robust accuracy of diffusion classifiers against where their noise levels lie, on validation images.

Run: python benchmarks/noise_level_curve.py [--n 64] [--steps 10] [--lm] [CENTRE:WIDTH:LEVELS ...]

Each setting places LEVELS levels at the quantiles of ln σ ~ N(CENTRE, WIDTH²). The attack is PGD with a margin loss, exact
gradients, one fresh draw a step, ℓ∞ 8/255; final images are judged by 4 fresh draws. This is how the levels of the bundled
cards were chosen; needs Fashion-MNIST's training set, whose last 5,000 images are the validation split.
"""

import argparse
import time

import torch

from rdc_bench.attacks.lp.pgd import pgd
from rdc_bench.core.predictions import predictions
from rdc_bench.core.randomness import draws_for, generator
from rdc_bench.data import load_dataset
from rdc_bench.defenses import RDC, DiffusionClassifier, LikelihoodMaximization
from rdc_bench.threats import LpThreat
from rdc_bench.zoo.loading import load_denoiser

REPEATS, BATCH = 4, 16
SETTINGS = ("-1.0:0.4:12", "-0.3:0.4:12", "0.2:0.4:12", "0.5:0.4:12", "0.8:0.4:12", "1.1:0.4:12", "1.4:0.4:12", "0.5:0.8:12")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("settings", nargs="*", default=SETTINGS)
    parser.add_argument("--denoiser", default="multihead-fashion-mnist")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--antithetic", action="store_true")
    parser.add_argument("--lm", help="ETA:STEP:OPTIMIZER:DRAWS:LOW:HIGH puts likelihood maximisation in front")
    options = parser.parse_args()
    data = load_dataset("fashion-mnist", "validation", options.n)
    denoiser = load_denoiser(options.denoiser)
    threat = LpThreat("linf", 8 / 255)
    print("centre width levels | clean avg | robust avg | robust worst of 4 | seconds")
    for setting in options.settings:
        centre, width, levels = setting.split(":")
        model = DiffusionClassifier(
            denoiser, 10, levels=int(levels), log_mean=float(centre), log_std=float(width), antithetic=options.antithetic
        )
        if options.lm:
            eta, step, optimizer, draws, low, high = options.lm.split(":")
            maximization = LikelihoodMaximization(
                denoiser,
                eta=float(eta) / 255,
                step_size=float(step),
                optimizer=optimizer,
                draws=int(draws),
                sigma=(float(low), float(high)),
            )
            model = RDC(maximization, model)
        began = time.perf_counter()
        clean, robust = [], []
        for start in range(0, options.n, BATCH):
            part = data.between(start, min(options.n, start + BATCH))
            keys = [("curve", start + i) for i in range(len(part))]
            generators = [generator(*key) for key in keys]
            right = predictions(model, part.images, [(*k, "clean") for k in keys], REPEATS) == part.labels[:, None]
            with draws_for([(*k, "attack") for k in keys]):
                adversarial = pgd.function(model, part.images, part.labels, threat, generators=generators, steps=options.steps)
            after = predictions(model, adversarial, [(*k, "judge") for k in keys], REPEATS) == part.labels[:, None]
            clean.append(right)
            robust.append(right & after)
        c, r = torch.cat(clean).float(), torch.cat(robust).float()
        print(
            f"{centre:>6} {width:>5} {levels:>6} | {100 * c.mean():8.1f}  | {100 * r.mean():9.1f}  | "
            f"{100 * r.min(dim=1).values.mean():16.1f}  | {time.perf_counter() - began:6.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
