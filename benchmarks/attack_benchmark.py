"""All attacks on the bundled models: robust accuracy against network evaluations, and optimality as in AttackBench.

Run: python benchmarks/attack_benchmark.py --out benchmarks/results

Four parts, each with a table in attack-benchmark.md: fixed ε on deterministic models, every registered attack that works
under ℓ∞ at several budgets; our Auto-PGD beside pyautoattack's at the same number of steps; minimum-norm attacks; and the RDC
under our attacks and under AutoAttack-rand, given about as many network evaluations. What is measured is kept in OUT/cells, so
that an interrupted benchmark goes on where it stopped. See docs/explanation/benchmark.md.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attack_tables
import click
import torch
from attack_measures import costing
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from rdc_bench.attacks import ATTACKS
from rdc_bench.attacks.lp.auto import NORMS, _attack_in_library
from rdc_bench.core.errors import UserError
from rdc_bench.core.files import write_atomically
from rdc_bench.core.predictions import predictions
from rdc_bench.core.randomness import draws_for, generator
from rdc_bench.data import Dataset, load_dataset
from rdc_bench.threats import LpThreat
from rdc_bench.zoo.loading import load_model

DETERMINISTIC = ("at-linf-fashion-mnist", "at-l2-fashion-mnist", "trades-linf-fashion-mnist", "standard-fashion-mnist")
#: Twice the usual ε: at 8/255 every attack breaks the same few images of Fashion-MNIST, which cannot tell attacks apart.
LINF = 16 / 255
#: Dataset and ε of each RDC.
STOCHASTIC = {"rdc-fashion-mnist": ("fashion-mnist", LINF), "rdc-cifar10": ("cifar10", 8 / 255)}
#: Minimum-norm attacks search up to four times the usual ε.
FARTHEST = {"linf": 4 * 8 / 255, "l2": 4 * 0.5}
MINIMUM_NORM = {"ddn": {}, "fmn": {}, "fab": {"steps": 10}}
#: Left out of the sweep over all attacks: cascades of attacks that are in it already, and what is spent on other models.
LEFT_OUT = ("autoattack", "autoattack-plus", "autoattack-rand", "ensemble", "transfer")
#: How a budget of gradient steps becomes options. Attacks without steps of their own are run once.
BUDGET: dict[str, Callable[[int], dict[str, Any]]] = {
    "apgd-t": lambda steps: {"steps": max(steps // 3, 1), "n_target_classes": 3},
    "fab": lambda steps: {"steps": max(steps // 5, 1)},  # a gradient for each class at every step
    "fab-t": lambda steps: {"steps": max(steps // 9, 1)},  # for each of nine targets
    "square": lambda steps: {"queries": 2 * steps},
    "square-eot": lambda steps: {"queries": 2 * steps},
}
#: Attacks on the RDC, by the number of gradients that they may take.
ON_STOCHASTIC: dict[str, Callable[[int], dict[str, Any]]] = {
    "pgd": lambda gradients: {"steps": gradients},
    "apgd-dlr": lambda gradients: {"steps": gradients},
    "apgd-margin": lambda gradients: {"steps": gradients},  # the loss of pgd, the schedule of apgd-dlr
    "autoattack-rand, eot 1": lambda gradients: {"steps": gradients // 2, "eot": 1},
    "autoattack-rand, eot 4": lambda gradients: {"steps": gradients // 8, "eot": 4},
}
REPEATS = 8
Images = Callable[[nn.Module, Tensor, Tensor, LpThreat, list[torch.Generator]], Tensor]


def registered(name: str, options: dict[str, Any]) -> Images:
    """A registered attack as a function."""
    attack = ATTACKS.get(name)
    settled = attack.options(options)

    def call(model: nn.Module, x: Tensor, y: Tensor, threat: LpThreat, generators: list[torch.Generator]) -> Tensor:
        if attack.batched:
            found: Tensor = attack.function(model, x, y, threat, generators=generators, **settled)
            return found
        one_by_one = zip(x.split(1), y.split(1), generators, strict=True)
        return torch.cat([attack.function(model, a, b, threat, generator=g, **settled) for a, b, g in one_by_one])

    return call


def of_pyautoattack(losses: tuple[str, ...], steps: int, eot: int = 1) -> Images:
    """pyautoattack's Auto-PGD on each loss in turn, the later ones where the earlier did not succeed, as its cascades do."""

    def library(threat: LpThreat, predict: Any, x: Tensor, y: Tensor, num_classes: int) -> Tensor:
        adversarial = x.clone()
        for loss in losses:
            left = (predict(adversarial).argmax(dim=1) == y).nonzero()[:, 0]
            if not len(left):
                break
            shared = {"n_iter": steps, "norm": NORMS[threat.kind], "eps": threat.eps, "eot_iter": eot, "device": x.device}
            if loss == "t":
                attacker: Any = APGDAttack_targeted(predict, n_target_classes=3, **shared)
            else:
                attacker = APGDAttack(predict, loss=loss, **shared)
            adversarial[left] = attacker.perturb(x[left], y[left])
        return adversarial

    def call(model: nn.Module, x: Tensor, y: Tensor, threat: LpThreat, generators: list[torch.Generator]) -> Tensor:
        return _attack_in_library("apgd", model, x, y, threat, generators, functools.partial(library, threat))

    return call


class Bench:
    """Measures cells: one model under one attack. A cell that is on disk is not measured again."""

    def __init__(self, folder: Path, quiet: bool = False) -> None:
        self.folder = folder
        self.quiet = quiet

    def cell(
        self,
        part: str,
        model: str,
        label: str,
        options: dict[str, Any],
        make: Callable[[], Images],
        threat: LpThreat,
        data: Dataset,
    ) -> dict[str, Any]:
        """The record of a cell; ``skipped`` says why where the attack does not apply to the model."""
        key = [part, model, label, sorted(options.items()), threat.kind, threat.eps, len(data)]
        path = self.folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
        if path.is_file():
            record: dict[str, Any] = json.loads(path.read_text())
            return record
        began = time.perf_counter()
        record = {"part": part, "model": model, "attack": label, "options": options, "threat": threat.kind, "eps": threat.eps}
        try:
            record |= measure(_model(model), make(), threat, data, label)
        except (UserError, NotImplementedError) as error:
            record["skipped"] = str(error)
        record["seconds"] = time.perf_counter() - began
        write_atomically(path, json.dumps(record).encode())
        if not self.quiet:
            shown = record.get("skipped") or f"robust {sum(record['robust']) / len(data):.3f}, NFE {record['nfe']:.0f}"
            click.echo(f"{part}: {model}, {label} {options}: {shown} ({record['seconds']:.1f} s)", err=True)
        return record


def measure(model: nn.Module, attack: Images, threat: LpThreat, data: Dataset, label: str) -> dict[str, Any]:
    """Attack the images that are right when clean, judge the results, and count.

    Returns: ``robust`` (n,) the share of draws in which each image is right before and after; ``clean`` (n,); ``distance`` (n,)
    of adversarial images, null where there is none; ``nfe`` for each image attacked.
    """
    x, y = data.images, data.labels
    repeats = REPEATS if getattr(model, "stochastic", False) else 1
    keys = [(0, i, "benchmark") for i in range(len(x))]
    clean = predictions(model, x, [(*k, "clean") for k in keys], repeats) == y[:, None]
    todo = clean.any(dim=1).nonzero()[:, 0]
    adversarial = x.clone()
    generators = [generator(*keys[i], label) for i in todo.tolist()]
    with draws_for([(*keys[i], label) for i in todo.tolist()]), costing(model, x[todo], y[todo], threat) as cost:
        adversarial[todo] = attack(model, x[todo], y[todo], threat, generators).detach()
    inside = threat.contains(x, adversarial)
    if not bool(inside.all()):
        raise UserError(f"{label} left the threat set on {int((~inside).sum())} images")
    right = clean & (predictions(model, adversarial, [(*k, "judge") for k in keys], repeats) == y[:, None])
    distance = threat.distance(x, adversarial)
    return {
        "clean": clean.float().mean(dim=1).tolist(),
        "robust": right.float().mean(dim=1).tolist(),
        "distance": [float(d) if not r else None for d, r in zip(distance, right.any(dim=1), strict=True)],
        "nfe": cost.per_image,
    }


@functools.cache
def _model(name: str) -> nn.Module:
    return load_model(name)


def every_attack(threat: LpThreat, budgets: tuple[int, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every registered attack under a threat, at each budget that its options can express."""
    for name in ATTACKS.names():
        if name in LEFT_OUT or threat.kind not in ATTACKS.get(name).threats:
            continue
        takes = ATTACKS.get(name).defaults
        if name in BUDGET:
            yield from ((name, BUDGET[name](budget)) for budget in budgets)
        elif "steps" in takes:
            yield from ((name, {"steps": budget}) for budget in budgets)
        else:
            yield name, {}


def on_deterministic(bench: Bench, data: Dataset, budgets: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Cells of every attack, at fixed ε and of minimum norm, on the deterministic models."""
    linf = LpThreat("linf", LINF)
    for model in DETERMINISTIC:
        for name, options in every_attack(linf, budgets):
            yield bench.cell("fixed", model, name, options, functools.partial(registered, name, options), linf, data)
        for loss in ("ce", "dlr", "t"):
            for budget in budgets:
                options = BUDGET["apgd-t"](budget) if loss == "t" else {"steps": budget}
                make = functools.partial(of_pyautoattack, (loss,), options["steps"])
                yield bench.cell("fixed", model, f"pyautoattack apgd-{loss}", options, make, linf, data)
    for kind, farthest in FARTHEST.items():
        threat = LpThreat(kind, farthest)
        for model in DETERMINISTIC:
            for name, options in MINIMUM_NORM.items():
                if name in ATTACKS.names() and kind in ATTACKS.get(name).threats:
                    make = functools.partial(registered, name, options)
                    yield bench.cell("minimum", model, name, options, make, threat, data)


def on_stochastic(bench: Bench, model: str, eps: float, data: Dataset, gradients: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Cells of our attacks and of AutoAttack-rand on an RDC, each with about as many gradients as allowed."""
    for allowed in gradients:
        for label, budget in ON_STOCHASTIC.items():
            options = budget(allowed)
            if "rand" in label:
                make = functools.partial(of_pyautoattack, ("ce", "dlr"), **options)
            else:
                make = functools.partial(registered, label, options)
            yield bench.cell("stochastic", model, label, options, make, LpThreat("linf", eps), data)


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for tables, plot and cells.")
@click.option(
    "--n", default=64, show_default=True, type=click.IntRange(0, 1000), help="Images on deterministic models; 0: none."
)
@click.option("--n-stochastic", default=8, show_default=True, type=click.IntRange(0, 1000), help="Images on the RDC; 0: none.")
@click.option("--rdc", default=next(iter(STOCHASTIC)), show_default=True, type=click.Choice(list(STOCHASTIC)), help="The RDC.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where the images of the RDC are, if they are not bundled.")
@click.option("--budget", "budgets", multiple=True, default=(10, 40), show_default=True, type=int, help="Gradient steps.")
@click.option(
    "--gradients", multiple=True, default=(16,), show_default=True, type=int, help="Gradients for each image of the RDC."
)
def main(
    out: Path, n: int, n_stochastic: int, rdc: str, data_dir: Path | None, budgets: tuple[int, ...], gradients: tuple[int, ...]
) -> None:
    bench = Bench(out / "cells")
    cells: list[dict[str, Any]] = []
    if n:
        cells += on_deterministic(bench, load_dataset("fashion-mnist", "test", n), budgets)
    if n_stochastic:
        dataset, eps = STOCHASTIC[rdc]
        cells += on_stochastic(bench, rdc, eps, load_dataset(dataset, "test", n_stochastic, data_dir=data_dir), gradients)
    if not cells:
        raise click.UsageError("--n 0 and --n-stochastic 0 leave nothing to measure")
    for path in attack_tables.write(cells, out):
        click.echo(f"written: {path}", err=True)
    click.echo((out / "attack-benchmark.md").read_text())


if __name__ == "__main__":
    main()
