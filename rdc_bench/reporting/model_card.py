"""The README of a repository on the Hub: the card in words, how to load it, and measured figures for the Hub to read.

The front matter follows the Hub's model cards (https://huggingface.co/docs/hub/model-cards); measured figures stand there as a
``model-index``, as fractions.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from rdc_bench.core.errors import UserError
from rdc_bench.results.schema import Manifest, ModelEntry
from rdc_bench.results.statistics import Rate
from rdc_bench.results.store import find_runs
from rdc_bench.results.summary import ModelSummary, summarize
from rdc_bench.zoo.cards import LoadedCard, every_card
from rdc_bench.zoo.layout import LIBRARY
from rdc_bench.zoo.parts import weight_files
from rdc_bench.zoo.reference import HubReference
from rdc_bench.zoo.schema import settings_of

#: Licences that the Hub knows by the lower case of their SPDX identifiers; any other is called ``other`` there, and named.
HUB_LICENSES = frozenset(
    {"mit", "apache-2.0", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0"}
)

Measured = tuple[Manifest, ModelSummary]


def measured(loaded: LoadedCard, results: Path) -> list[Measured]:
    """What the complete runs under ``results`` (or the run ``results`` itself) say about a model.

    Raises: ``UserError`` when no run holds it, or one holds another model of the same name.
    """
    found = []
    for folder in find_runs(results):
        manifest = folder.manifest()
        entries = [entry for entry in manifest.models if entry.name == loaded.card.name]
        if entries and manifest.files:
            if not _same(entries[0], loaded):
                raise UserError(f"{folder.path}: its {loaded.card.name!r} has another card or other weights than the one here")
            summaries = {summary.model: summary for summary in summarize(manifest, folder.records())}
            found.append((manifest, summaries[loaded.card.name]))
    if not found:
        raise UserError(f"{results}: no complete run there holds {loaded.card.name!r}")
    return found


def _same(entry: ModelEntry, loaded: LoadedCard) -> bool:
    weights = sorted(entry.weights.values()) == sorted(weight_files(loaded).values())
    return weights and entry.settings == settings_of(part.card for part in every_card(loaded))


def readme(loaded: LoadedCard, reference: HubReference, runs: list[Measured]) -> str:
    """The whole file."""
    card = loaded.card
    license_ = card.license.lower()
    known = license_ in HUB_LICENSES
    data = ModelCardData(
        library_name=LIBRARY,
        license=license_ if known else "other",
        license_name=None if known else card.license,
        pipeline_tag=None if card.role == "part" else "image-classification",
        tags=["adversarial-robustness", "rdc-bench", card.model.kind],
        datasets=[card.dataset],
        model_name=card.name,
        eval_results=[result for run in runs for result in _eval_results(*run)] or None,
    )
    return "\n".join(["---", data.to_yaml(), "---", "", *_body(loaded, reference, runs)]) + "\n"


def _eval_results(manifest: Manifest, summary: ModelSummary) -> list[EvalResult]:
    under = f"under {manifest.threat} {manifest.eps}, profile {manifest.profile}"
    rates = {
        "Clean accuracy": summary.clean,
        f"Robust accuracy {under}, average of the draws": summary.avg,
        f"Robust accuracy {under}, worst of the draws": summary.worst,
    }
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=manifest.dataset,
            dataset_name=manifest.dataset,
            dataset_split=manifest.split,
            metric_type="accuracy",
            metric_name=name,
            metric_value=round(rate.value, 4),
            metric_args={"low": round(rate.low, 4), "high": round(rate.high, 4), "images": manifest.n},
        )
        for name, rate in rates.items()
    ]


def _body(loaded: LoadedCard, reference: HubReference, runs: list[Measured]) -> list[str]:
    card = loaded.card
    lines = [f"# {card.title}", ""]
    if card.summary:
        lines += [card.summary, ""]
    lines += [
        f"For {card.dataset}: images of shape {tuple(card.image_shape)}, {card.num_classes} classes. Licence: {card.license}.",
        f"Source: {card.source}." + (f" Paper: {card.paper}." if card.paper else ""),
        "",
        "```python",
        "import rdc_bench",
        "",
        f'model = rdc_bench.load_model("{reference}")  # images in [0, 1] to logits'
        if card.role != "part"
        else f'denoiser = rdc_bench.load_denoiser("{reference}")',
        "```",
        "",
        "| card | kind | weights |",
        "|---|---|---|",
    ]
    for part in every_card(loaded):
        files = ", ".join(f"`{file}`" for file in weight_files(part.model_copy(update={"parts": {}})))
        lines.append(f"| `{part.card.name}` | {part.card.model.kind} | {files or '–'} |")
    for manifest, summary in runs:
        lines += ["", *_table(manifest, summary)]
    for part in every_card(loaded):
        if made := part.card.training:
            lines += ["", f"`{part.card.name}` was trained with `{made.command}` (seed {made.seed}, {made.date})."]
    return lines


def _table(manifest: Manifest, summary: ModelSummary) -> list[str]:
    """One run's figures for people to read."""
    rates: dict[str, Rate] = {
        "clean": summary.clean,
        "robust, average of the draws": summary.avg,
        "robust, vote of the draws": summary.majority,
        "robust, worst of the draws": summary.worst,
    }
    rates |= {f"{name}, worst of the draws": attack.worst for name, attack in summary.attacks.items()}
    return [
        f"## {manifest.threat} {manifest.eps}",
        "",
        f"The first {manifest.n} {manifest.split} images of {manifest.dataset}, profile {manifest.profile} ({manifest.note}). "
        f"Percent, with Wilson 95 % intervals; {summary.undecided} images undecided, which count as broken.",
        "",
        "| accuracy | value |",
        "|---|---|",
        *(f"| {name} | {rate.percent} |" for name, rate in rates.items()),
    ]
