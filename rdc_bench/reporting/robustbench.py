"""Runs in RobustBench's form: a ``model_info`` file for each model, and the images that an external evaluation asks for.

``model_info/DATASET/THREAT/NAME.json`` has the fields of RobustBench's files of that name: accuracies as text in percent,
``autoattack_acc`` from AutoAttack's standard version and ``external`` from the union of all attacks of the run, worst case per
image. ``adversarial/DATASET/THREAT/NAME.pt`` is a float tensor (n, C, H, W) with the worst adversarial image found for each of
the first n test images. RobustBench wants the whole test set; the footnote says what n was.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any

import torch
from torch import Tensor

from rdc_bench.eps import parse_eps
from rdc_bench.errors import UserError
from rdc_bench.reporting.comparison import Comparisons, RunTable
from rdc_bench.results.schema import Manifest, ModelEntry
from rdc_bench.results.store import RunFolder
from rdc_bench.results.summary import ModelSummary

DATASETS = ("cifar10", "cifar100", "imagenet")
THREATS = {"linf": "Linf", "l2": "L2"}
AUTOATTACK = "autoattack"


def robustbench_files(comparisons: Comparisons) -> dict[str, bytes]:
    """Names and contents of the files for every run on a dataset and threat model of RobustBench's; other runs have none.

    Raises: ``UserError`` when no run is on such, or two runs hold the same model there.
    """
    files: dict[str, bytes] = {}
    sources: dict[str, str] = {}
    for table in comparisons.runs:
        m = table.manifest
        if m.dataset not in DATASETS or m.threat_kind not in THREATS:
            continue
        images = RunFolder(table.path).images()
        summaries = {summary.model: summary for summary in table.models}
        for entry in m.models:
            place = f"{m.dataset}/{THREATS[m.threat_kind]}/{_name(entry)}"
            if place in sources:
                raise UserError(
                    f"{place} is in the runs {sources[place]} and {table.path.name}; give the folder of one, "
                    f"e.g. `rdc-bench report {table.path} --format robustbench`"
                )
            sources[place] = table.path.name
            info = model_info(table, entry, summaries[entry.name])
            files[f"model_info/{place}.json"] = json.dumps(info, indent=2, ensure_ascii=False).encode() + b"\n"
            files[f"adversarial/{place}.pt"] = _saved(_adversarial(images, entry, m))
    if not files:
        raise UserError(
            f"no complete run is on a dataset ({', '.join(DATASETS)}) and threat model ({', '.join(THREATS)}) of RobustBench's"
        )
    return files


def model_info(table: RunTable, entry: ModelEntry, summary: ModelSummary) -> dict[str, Any]:
    """The fields of a ``model_info`` file. Images that an attack failed on, and no other broke, count as broken."""
    m, card = table.manifest, entry.card
    info = {
        **_paper(card),
        "name": summary.title + ", noise fixed" * entry.fixed_noise,
        # RobustBench means real images beyond the training set. Of models not trained here, it is not known.
        "additional_data": False if card.get("training") else None,
        "number_forward_passes": round(summary.nfe_per_image),
        "dataset": m.dataset,
        "architecture": _architecture(card),
        "eps": m.eps,
        "clean_acc": _percent(summary.clean.value),
        "external": _percent(summary.worst.value),
        "footnote": _footnote(table, entry, summary),
        "unreliable": summary.undecided > 0 or entry.gradient == "bpda" or summary.upper_bound,
    }
    if AUTOATTACK in summary.attacks:
        info["autoattack_acc"] = _percent(summary.attacks[AUTOATTACK].worst.value)
    if reported := _reported(card, m):
        info["reported"] = reported
    return info


def _name(entry: ModelEntry) -> str:
    """RobustBench's own name of a model that comes from there, else the card's."""
    spec = entry.card["model"]
    name = str(spec["id"] if spec["kind"] == "robustbench" else entry.card["name"]) + "_fixed_noise" * entry.fixed_noise
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UserError(f"model {name!r}: a name that cannot be that of a file")
    return name


def _paper(card: dict[str, Any]) -> dict[str, str]:
    """Link, authors and venue as far as the card's ``paper`` says them. RobustBench takes the last word for the year."""
    paper = str(card.get("paper") or "")
    arxiv = re.search(r"arXiv (\d{4}\.\d{4,5})", paper)
    year = re.search(r"\b(?:19|20)\d\d\b(?!\.)", paper)
    return {
        "link": f"https://arxiv.org/abs/{arxiv[1]}" if arxiv else "",
        "authors": paper[: year.start()].rstrip(" ,(") if year else "N/A",
        "venue": f"{'arXiv' if arxiv else 'Unpublished'} {year[0]}" if year else "N/A",
    }


def _architecture(card: dict[str, Any]) -> str:
    spec = card["model"]
    return {
        "classifier": lambda: spec["architecture"],
        "diffusion-classifier": lambda: f"diffusion classifier on {spec['denoiser']}",
        "rdc": lambda: f"likelihood maximisation, then {spec['classifier']}",
        "robustbench": lambda: str(spec["id"]),
    }.get(spec["kind"], lambda: "unknown")()


def _reported(card: dict[str, Any], m: Manifest) -> str | None:
    """The figure that the card quotes for the run's threat model, as it was printed."""
    eps = parse_eps(m.eps).value
    for figure in card.get("reported", []):
        same = figure.get("threat") == m.threat and figure.get("eps") and parse_eps(figure["eps"]).value == eps
        if same and figure["metric"] in ("robust", "worst"):
            return str(figure["percent"])
    return None


def _footnote(table: RunTable, entry: ModelEntry, summary: ModelSummary) -> str:
    m, rate = table.manifest, summary.worst
    attacks = ", ".join(f"{a.label} ({', '.join(f'{k}={v}' for k, v in a.options.items())})" for a in m.attacks)
    draws = f", right in each of {entry.repeats} draws of the model's randomness" if entry.stochastic else ""
    undecided = f"; {summary.undecided} images without a verdict count as broken" if summary.undecided else ""
    return (
        f"External robust accuracy on the first {m.n} {m.split} images{draws}, 95 % interval "
        f"[{_percent(rate.low)}, {_percent(rate.high)}]{undecided}. Attacks: {attacks}, gradients {entry.gradient}; {m.note}. "
        f"Measured by rdc-bench {m.versions['rdc_bench']}, run {table.path.name}."
    )


def _adversarial(images: dict[str, Tensor], entry: ModelEntry, m: Manifest) -> Tensor:
    """The worst image found for each input, whether the run kept those alone or all."""
    if entry.name in images:
        return images[entry.name]
    every = torch.stack([images[f"{entry.name}/{a.label}"] for a in m.attacks])
    return every[images[f"{entry.name}/attack"].clamp_min(0), torch.arange(m.n)]


def _saved(images: Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(images.float().contiguous(), buffer)
    return buffer.getvalue()


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f}"
