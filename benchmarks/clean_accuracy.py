"""Clean accuracy on the first test images, one draw per image: of models, or of the teacher's and the student's classifiers.

Run: python benchmarks/clean_accuracy.py [--n 256] [--levels 24] [--log-mean 0.7 --log-std 0.5]
     python benchmarks/clean_accuracy.py --n 1000 --model rdc-shifted-fashion-mnist
     python benchmarks/clean_accuracy.py --n 1000 --model dc-teacher-cifar10 --data-dir FOLDER

Teacher and student take the settings of the bundled card ``dc-fashion-mnist``, but for what is asked for.
"""

import argparse
from collections.abc import Iterator

import torch
from torch import nn

from rdc_bench.core.predictions import predictions
from rdc_bench.data import load_dataset
from rdc_bench.defenses import DiffusionClassifier
from rdc_bench.results.statistics import wilson
from rdc_bench.zoo.cards import find_model_card
from rdc_bench.zoo.loading import load_denoiser, load_model
from rdc_bench.zoo.schema import DiffusionClassifierSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--model", action="append", help="a model as it is, instead of teacher and student; may be repeated")
    parser.add_argument("--levels", type=int, default=24)
    parser.add_argument("--log-mean", type=float, help="of the noise levels; default: the card's")
    parser.add_argument("--log-std", type=float, help="of the noise levels; default: the card's")
    parser.add_argument("--data-dir", help="where the images are, if they are not bundled")
    options = parser.parse_args()
    for name, dataset, model in _models(options):
        data = load_dataset(dataset, "test", options.n, data_dir=options.data_dir)
        found = []
        for start in range(0, options.n, 16):
            part = data.between(start, min(options.n, start + 16))
            keys = [("clean", start + i) for i in range(len(part))]
            found.append(predictions(model, part.images, keys, 1)[:, 0] == part.labels)
        value, low, high = wilson(float(torch.cat(found).float().mean()), options.n)
        print(f"{name}: {100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}] on {options.n} test images")


def _models(options: argparse.Namespace) -> Iterator[tuple[str, str, nn.Module]]:
    if options.model:
        yield from ((name, find_model_card(name).card.dataset, load_model(name)) for name in options.model)
        return
    spec = find_model_card("dc-fashion-mnist").card.model
    assert isinstance(spec, DiffusionClassifierSpec)
    asked = {"levels": options.levels, "log_mean": options.log_mean, "log_std": options.log_std}
    given = {name: value for name, value in asked.items() if value is not None}
    settings = spec.model_dump(exclude={"kind", "denoiser"}) | given
    for name in ("teacher-fashion-mnist", "multihead-fashion-mnist"):
        yield f"{name}, {options.levels} levels", "fashion-mnist", DiffusionClassifier(load_denoiser(name), 10, **settings)


if __name__ == "__main__":
    main()
