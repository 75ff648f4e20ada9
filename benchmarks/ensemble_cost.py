"""What `ensemble` breaks and what it costs, beside AutoAttack on the same images of adversarially trained models.

Run: python benchmarks/ensemble_cost.py [--images 64] [--model NAME]... [--attack NAME]...

Cost is counted inside the models, by hooks: images that went forward through the network, and images that went backward. Both
attacks drop images as they break them. Most of AutoAttack's cost is FAB's and Square's for every image still standing.

With --images 32, on one busy core (clean: images right as they are; robust: right after the attack)::

    model                   attack         clean  robust   forward  backward       s
    at-linf-fashion-mnist   ensemble          26      24     32118     27024     237
    at-linf-fashion-mnist   autoattack        26      24    188984     46042     728
    at-l2-fashion-mnist     ensemble          25      24     32103     27012     215
    at-l2-fashion-mnist     autoattack        25      24    188872     45941     637
"""

import argparse
import time

import torch

from rdc_bench import load_model
from rdc_bench.attacks import ATTACKS
from rdc_bench.core.randomness import generator
from rdc_bench.data import load_dataset
from rdc_bench.evaluation.metering import metered
from rdc_bench.threats import LpThreat

#: The bundled models that were trained against a norm, with the size of their training.
MODELS = {"at-linf-fashion-mnist": LpThreat("linf", 8 / 255), "at-l2-fashion-mnist": LpThreat("l2", 0.5)}
ATTACKS_COMPARED = ("ensemble", "autoattack")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--attack", action="append")
    arguments = parser.parse_args()
    data = load_dataset("fashion-mnist", "test", arguments.images)
    print(f"first {arguments.images} test images")
    print(f"{'model':24}{'attack':12}{'clean':>8}{'robust':>8}{'forward':>10}{'backward':>10}{'s':>8}", flush=True)
    for name in arguments.model or MODELS:
        model, threat = load_model(name), MODELS[name]
        with torch.no_grad():
            right = model(data.images).argmax(dim=1) == data.labels
        x, y = data.images[right], data.labels[right]
        for attack in arguments.attack or ATTACKS_COMPARED:
            began = time.perf_counter()
            with metered(model) as meter:
                generators = [generator(0, index, attack) for index in right.nonzero()[:, 0].tolist()]
                adversarial = ATTACKS.get(attack).function(model, x, y, threat, generators=generators)
            with torch.no_grad():
                robust = int((model(adversarial).argmax(dim=1) == y).sum())
            counts = f"{len(x):8}{robust:8}{meter.forward:10}{meter.backward:10}{time.perf_counter() - began:8.0f}"
            print(f"{name:24}{attack:12}{counts}", flush=True)


if __name__ == "__main__":
    main()
