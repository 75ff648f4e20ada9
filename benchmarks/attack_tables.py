"""The attack benchmark's tables and plot, from the cells that it measured."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from attack_measures import area, optimality, security_area
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy.stats import wilcoxon

from rdc_bench.core.files import write_atomically
from rdc_bench.results.statistics import Comparison, mcnemar, wilson

Cell = dict[str, Any]
#: Ours and theirs, on the same loss.
PAIRS = {"apgd-ce": "pyautoattack apgd-ce", "apgd-dlr": "pyautoattack apgd-dlr", "apgd-t": "pyautoattack apgd-t"}
RAND = "autoattack-rand"


def write(cells: Sequence[Cell], out: Path) -> list[Path]:
    """Write attack-benchmark.md, .csv and .png; returns their paths."""
    done = [cell for cell in cells if "skipped" not in cell]
    files = {"md": _page(done, cells).encode(), "csv": _csv(done).encode(), "png": _plot(done)}
    paths = []
    for ending, content in files.items():
        paths.append(out / f"attack-benchmark.{ending}")
        write_atomically(paths[-1], content)
    return paths


def fixed_rows(cells: Sequence[Cell]) -> pd.DataFrame:
    """Per attack: robust accuracy (and NFE) at its largest budget on each model, and its optimality over all budgets."""
    cells = [cell for cell in cells if cell["part"] == "fixed"]
    models, attacks = _unique(cells, "model"), _unique(cells, "attack")
    local = {model: _local_optimality([cell for cell in cells if cell["model"] == model]) for model in models}
    rows = []
    for attack in attacks:
        row: dict[str, Any] = {"attack": attack}
        for model in models:
            mine = [cell for cell in cells if (cell["model"], cell["attack"]) == (model, attack)]
            if mine:
                most = max(mine, key=lambda cell: cell["nfe"])
                row[model] = f"{100 * np.mean(most['robust']):.1f} ({most['nfe']:.0f}) · {local[model][attack]:.3f}"
        row["global"] = float(np.mean([local[model][attack] for model in models if attack in local[model]]))
        rows.append(row)
    return pd.DataFrame(rows).sort_values("global", ascending=False, kind="stable").fillna("–")


def _local_optimality(cells: Sequence[Cell]) -> dict[str, float]:
    """Per attack on one model, from the areas under robust accuracy against the logarithm of network evaluations.

    The best at a cost is what any attack breaks at no more than it, image by image.
    """
    low, high = (bound(math.log10(max(cell["nfe"], 1)) for cell in cells) for bound in (min, max))
    clean = float(np.mean(cells[0]["clean"]))

    def under(of: Sequence[tuple[float, float]]) -> float:
        return area([cost for cost, _ in of], [robust for _, robust in of], clean, low, high)

    ordered = sorted(cells, key=lambda cell: cell["nfe"])
    survivors = np.minimum.accumulate(np.array([cell["robust"] for cell in ordered]), axis=0)
    best = under([(_log(cell), float(left.mean())) for cell, left in zip(ordered, survivors, strict=True)])
    none = clean * (high - low)
    found = {}
    for attack in _unique(cells, "attack"):
        mine = [cell for cell in ordered if cell["attack"] == attack]
        left = np.minimum.accumulate(np.array([cell["robust"] for cell in mine]), axis=0).mean(axis=1)
        found[attack] = optimality(under(list(zip(map(_log, mine), map(float, left), strict=True))), best, none)
    return found


def _log(cell: Cell) -> float:
    return math.log10(max(cell["nfe"], 1))


class Duel(dict[str, Any]):
    """Two attacks on the same images; as a row of a table. ``test``: of "robust under the first" against the second."""

    test: Comparison

    @classmethod
    def between(cls, ours: Cell, theirs: Cell, robust: float = 1.0) -> Duel:
        first, second = (np.array(cell["robust"]) >= robust for cell in (ours, theirs))
        made = cls(
            {
                "ours": f"{100 * np.mean(ours['robust']):.1f}",
                "theirs": f"{100 * np.mean(theirs['robust']):.1f}",
                "only ours breaks": int((second & ~first).sum()),
                "only theirs breaks": int((first & ~second).sum()),
                "NFE ours": f"{ours['nfe']:.0f}",
                "NFE theirs": f"{theirs['nfe']:.0f}",
            }
        )
        made.test = mcnemar(first, second)
        made["p"] = f"{made.test.p_value:.2g}"
        return made


def duels(cells: Sequence[Cell]) -> list[tuple[dict[str, Any], Duel]]:
    """Our Auto-PGD against pyautoattack's, loss by loss at the same steps."""
    by_key = {(cell["model"], cell["attack"], str(cell["options"])): cell for cell in cells if cell["part"] == "fixed"}
    found = []
    for (model, attack, options), ours in by_key.items():
        if attack in PAIRS and (theirs := by_key.get((model, PAIRS[attack], options))):
            found.append(({"model": model, "attack": attack, "steps": ours["options"]["steps"]}, Duel.between(ours, theirs)))
    return found


def verdict(found: Sequence[tuple[dict[str, Any], Duel]], level: float = 0.05) -> str:
    """Whether ours is anywhere worse, in a sentence."""
    worse = [duel for _, duel in found if duel["only theirs breaks"] > duel["only ours breaks"]]
    significant = [duel for duel in worse if duel.test.p_value < level]
    margin = max((duel["only theirs breaks"] - duel["only ours breaks"] for duel in worse), default=0)
    better = sum(duel["only ours breaks"] > duel["only theirs breaks"] for _, duel in found)
    claim = "Ours is nowhere significantly worse" if not significant else f"Ours is significantly worse in {len(significant)}"
    return (
        f"{claim}: of {len(found)} comparisons it breaks more images in {better}, fewer in {len(worse)} "
        f"(by at most {margin}), as many in {len(found) - better - len(worse)}."
    )


def minimum_rows(cells: Sequence[Cell]) -> pd.DataFrame:
    """Minimum-norm attacks: median distance and local optimality for each model, and their mean, the global optimality."""
    cells = [cell for cell in cells if cell["part"] == "minimum"]
    rows = []
    for threat in _unique(cells, "threat"):
        here = [cell for cell in cells if cell["threat"] == threat]
        nearest = {
            model: np.min([_distances(cell) for cell in here if cell["model"] == model], axis=0)
            for model in _unique(here, "model")
        }
        for attack in _unique(here, "attack"):
            row: dict[str, Any] = {"threat": threat, "attack": attack}
            local = []
            for cell in (cell for cell in here if cell["attack"] == attack):
                d, largest = _distances(cell), cell["eps"]
                none = float(np.mean(cell["clean"])) * largest
                local.append(
                    optimality(security_area(d, largest), security_area(nearest[cell["model"]], largest), none),
                )
                median = float(np.median(d[d > 0]))
                shown = f"{median:.3g}" if median <= largest else f"> {largest:.3g}"
                row[cell["model"]] = f"{shown} ({cell['nfe']:.0f}) · {local[-1]:.3f}"
            row["global"] = f"{np.mean(local):.3f}"
            rows.append(row)
    return pd.DataFrame(rows).fillna("–")


def _distances(cell: Cell) -> np.ndarray:
    """To the adversarial image; 0 for images that are wrong when clean, infinite where none was found."""
    return np.array(
        [0.0 if not c else np.inf if d is None else d for c, d in zip(cell["clean"], cell["distance"], strict=True)]
    )


def stochastic_rows(cells: Sequence[Cell]) -> pd.DataFrame:
    """Attacks on the randomised model: average and worst of the draws, and the cost."""
    rows = []
    for cell in (cell for cell in cells if cell["part"] == "stochastic"):
        robust = np.array(cell["robust"])
        n = len(robust)
        rows.append(
            {
                "attack": cell["attack"],
                "options": ", ".join(f"{k}={v}" for k, v in cell["options"].items()),
                "robust avg": wilson(float(robust.mean()), n).percent,
                "robust worst": wilson(float((robust == 1).mean()), n).percent,
                "NFE": f"{cell['nfe']:.0f}",
                "s/image": f"{cell['seconds'] / n:.1f}",
            }
        )
    return pd.DataFrame(rows)


def against_rand(cells: Sequence[Cell]) -> pd.DataFrame:
    """Each of our attacks on the randomised model against each AutoAttack-rand: by images right in every draw (p), and by the
    share of draws in which each image is right (p of the averages)."""
    cells = [cell for cell in cells if cell["part"] == "stochastic"]
    rand = [cell for cell in cells if cell["attack"].startswith(RAND)]
    return pd.DataFrame(
        {
            "ours is": f"{ours['attack']} (steps: {ours['options']['steps']})",
            "theirs is": f"{theirs['attack']} (steps: {theirs['options']['steps']})",
            **Duel.between(ours, theirs),
            "p of the averages": f"{signed_rank(ours['robust'], theirs['robust']):.2g}",
        }
        for ours in cells
        if ours not in rand
        for theirs in rand
        if 0.5 < ours["nfe"] / theirs["nfe"] < 2
    )


def signed_rank(first: Sequence[float], second: Sequence[float]) -> float:
    """Wilcoxon's signed-rank test (Wilcoxon 1945) of paired differences: two-sided p-value, 1 where none differs."""
    differences = np.subtract(first, second)
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def _page(done: Sequence[Cell], cells: Sequence[Cell]) -> str:
    n = {part: len(next(c for c in done if c["part"] == part)["robust"]) for part in _unique(done, "part")}
    parts = [
        "# Attack benchmark",
        "",
        "NFE: network evaluations for each image attacked, forward and backward, counted inside the model. "
        "p: McNemar's exact test on the same images.",
    ]
    if "fixed" in n:
        found = duels(done)
        parts += [
            "",
            f"## Fixed ε (ℓ∞ 16/255), first {n['fixed']} test images",
            "",
            "Robust accuracy in % (NFE) at the largest budget · local optimality over all budgets; global: its mean.",
            "",
            _markdown(fixed_rows(done)),
            "",
            "## Auto-PGD, ours and pyautoattack's, at the same steps",
            "",
            verdict(found),
            "",
            _markdown(pd.DataFrame({**where, **duel} for where, duel in found)),
        ]
    if "minimum" in n:
        parts += [
            "",
            f"## Minimum norm, first {n['minimum']} test images",
            "",
            "Median distance (NFE) · local optimality; global: its mean.",
            "",
            _markdown(minimum_rows(done)),
        ]
    if "stochastic" in n:
        rdc = next(cell for cell in done if cell["part"] == "stochastic")
        parts += [
            "",
            f"## {rdc['model']} (ℓ∞ {255 * rdc['eps']:.3g}/255), first {n['stochastic']} test images",
            "",
            _markdown(stochastic_rows(done)),
            "",
            "Against AutoAttack-rand at about the same NFE; robust accuracy is the average of the draws, and an image is "
            "broken when some draw gets it wrong. p of the averages: Wilcoxon's signed-rank test on the images' shares.",
            "",
            _markdown(against_rand(done)),
        ]
    skipped = {f"{cell['attack']} on {cell['model']}: {cell['skipped']}" for cell in cells if "skipped" in cell}
    if skipped:
        parts += ["", "## Not measured", "", *sorted(f"* {line}" for line in skipped)]
    return "\n".join(parts) + "\n"


def _csv(done: Sequence[Cell]) -> str:
    columns = ("part", "model", "threat", "eps", "attack")
    return pd.DataFrame(
        {
            **{column: cell[column] for column in columns},
            "options": " ".join(f"{k}={v}" for k, v in cell["options"].items()),
            "n": len(cell["robust"]),
            "clean": np.mean(cell["clean"]),
            "robust": np.mean(cell["robust"]),
            "robust_worst": np.mean(np.array(cell["robust"]) == 1),
            "nfe": cell["nfe"],
            "seconds": cell["seconds"],
        }
        for cell in done
    ).to_csv(index=False)


#: Colours that colour-blind readers tell apart (Okabe & Ito 2008), then dashes, then markers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X"
#: Percentage points that a panel shows at least, so that a difference of one image does not fill it.
NARROWEST = 25


def _plot(done: Sequence[Cell]) -> bytes:
    shown = [cell for cell in done if cell["part"] in ("fixed", "stochastic")]
    models, attacks = _unique(shown, "model"), _unique(shown, "attack")
    columns = min(3, len(models))
    lines = math.ceil(len(models) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * lines + 1.1), dpi=130, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel, model in zip(panels, models, strict=False):
        for number, attack in enumerate(attacks):
            mine = sorted((c for c in shown if (c["model"], c["attack"]) == (model, attack)), key=lambda c: c["nfe"])
            if mine:
                costs, left = [cell["nfe"] for cell in mine], [100 * np.mean(cell["robust"]) for cell in mine]
                panel.plot(costs, left, **_style(number, attack))
        clean = 100 * np.mean(next(c for c in shown if c["model"] == model)["clean"])
        panel.axhline(clean, color="0.6", linewidth=1, linestyle=":")
        panel.annotate("clean", (0.99, clean), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="0.4", size=8)
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        bottom, top = panel.get_ylim()
        panel.set_ylim(max(min(bottom, top - NARROWEST), -2), max(top, NARROWEST))
        panel.set_title(model, fontsize="medium", loc="left")
        panel.grid(color="0.92")
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel("network evaluations per image")
        panel.set_ylabel("robust accuracy in %")
    for panel in panels[len(models) :]:
        panel.set_visible(False)
    handles = [panels[0].plot([], [], **_style(number, attack))[0] for number, attack in enumerate(attacks)]
    figure.legend(handles, attacks, loc="outside lower center", ncols=max(2, 5 * columns // 3), frameon=False, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _style(number: int, attack: str) -> dict[str, Any]:
    """Those of pyautoattack are dashed, with hollow marks."""
    theirs = "autoattack" in attack
    colour = COLOURS[number % len(COLOURS)]
    return {
        "color": colour,
        "marker": MARKERS[number % len(MARKERS)],
        "markerfacecolor": "white" if theirs else colour,
        "linestyle": "--" if theirs else "-",
        "markersize": 6,
        "linewidth": 1.3,
        "alpha": 0.85,
    }


def _unique(cells: Sequence[Cell], key: str) -> list[Any]:
    return list(dict.fromkeys(cell[key] for cell in cells))


def _markdown(frame: pd.DataFrame) -> str:
    if not len(frame):
        return "Nothing comparable was measured."
    shown = frame.map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(value))
    return shown.to_markdown(index=False, disable_numparse=True)
