"""Carrying a recipe out, and telling what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdc_bench.api import run
from rdc_bench.core.files import check_writable, write_atomically
from rdc_bench.evaluation.run import RunResult
from rdc_bench.evaluation.tally import Progress
from rdc_bench.reporting.bounds import footnotes
from rdc_bench.reproduction.recipe import Recipe, Step, find_recipe
from rdc_bench.reproduction.table import ALL, Done, Row, long_table, rows_of, table
from rdc_bench.reproduction.variants import write_variant
from rdc_bench.results.across import StoredRun
from rdc_bench.results.store import RunFolder


@dataclass(frozen=True)
class Reproduction:
    """A recipe carried out: its folder, one row per model, and the files written."""

    recipe: Recipe
    n: int
    rows: list[Row]
    complete: bool
    written: list[Path]

    @property
    def heading(self) -> str:
        """What was done, in one line."""
        r = self.recipe
        return f"{r.title} · {r.dataset} · {r.threat} · eps {r.eps} · first {self.n} test images · {r.repeats} repeats"

    @property
    def footnotes(self) -> list[str]:
        """What the marks in the table mean, if there are any."""
        return footnotes(row.together for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """The document that ``rdc-bench reproduce --json`` prints."""
        return {
            "recipe": self.recipe.name,
            "dataset": self.recipe.dataset,
            "threat": self.recipe.threat,
            "eps": self.recipe.eps,
            "n": self.n,
            "models": [row.as_json() for row in self.rows],
            "files": [str(path) for path in self.written],
        }


def reproduce(
    name: str,
    *,
    n: int | None = None,
    out: str | Path = "results",
    progress: Progress = lambda step: None,
    **more: Any,
) -> Reproduction:
    """Carry out a recipe under ``out``/NAME; what is there already is not computed again.

    Args:
        name: of a packaged recipe, or a path. n: images, the first of the test split; None for the recipe's.
        progress: called after every shard.
        more: ``say``, ``device``, ``data_dir``, ``allow_download`` of :func:`rdc_bench.run`.
    Raises: ``UserError`` for bad input; ``OSError`` where ``out`` cannot be written.
    """
    recipe = find_recipe(name)
    folder = Path(out) / recipe.name
    check_writable(folder)
    cards = {title: str(write_variant(title, variant, folder / "cards")) for title, variant in recipe.variants.items()}
    steps: list[Done] = []
    for step in recipe.steps:
        result = run(
            [cards.get(model, model) for model in step.models],
            recipe.threat,
            recipe.eps,
            step.attacks,
            attack_options=step.options,
            dataset=recipe.dataset,
            n=n or recipe.n,
            repeats=recipe.repeats,
            seed=recipe.seed,
            profile=recipe.profile,
            witness=recipe.witness,
            out=folder,
            progress=progress,
            **more,
        )
        assert isinstance(result, RunResult)  # a recipe names one threat, no set of them
        steps.append(Done(step.label, result, StoredRun.read(RunFolder(result.path))))
        # After every step, so that the table of what is done is there however long the rest takes.
        reproduction = _told(recipe, folder, steps)
    return reproduction


def _told(recipe: Recipe, folder: Path, steps: list[Done]) -> Reproduction:
    """Write the table and the figure of the steps that are done."""
    from rdc_bench.reproduction.figure import png  # matplotlib takes long to import

    complete = all(step.result.complete for step in steps)
    written = [folder / "table.md", folder / "table.csv", folder / "figure.png"]
    told = Reproduction(recipe, steps[0].result.manifest.n, rows_of(steps), complete, written)
    for path, content in zip(
        written,
        (_markdown(told).encode(), long_table(told.rows).to_csv(index=False).encode(), png(told.rows, told.heading)),
        strict=True,
    ):
        write_atomically(path, content)
    return told


def _markdown(told: Reproduction) -> str:
    recipe = told.recipe
    steps = [f"- **{label}**: {attacks}" for label, attacks in {s.label: _attacks(s) for s in recipe.steps}.items()]
    variants = [f"- `{name}`: `{v.of}`, {v.says}" for name, v in recipe.variants.items()]
    parts = [
        f"# {told.heading}",
        recipe.question,
        "Accuracies in %, average / worst of the repeats; where one stands alone, with its Wilson 95 % interval. "
        f"*{ALL}*: images that no step broke.",
        table(told.rows).to_markdown(index=False, disable_numparse=True),
        *told.footnotes,
        "Steps:\n\n" + "\n".join(steps),
    ]
    if variants:
        parts.append("Variants:\n\n" + "\n".join(variants))
    return "\n\n".join(parts) + "\n"


def _attacks(step: Step) -> str:
    names = ", ".join(step.attacks) or "the profile's attacks"
    options = ", ".join(f"{key} = {value}" for key, value in step.options.items())
    return f"{names} ({options})" if options else names
