"""The documentation quotes the cards: it must name all that are of elsewhere, and say their figures as they do."""

from pathlib import Path

import pytest

from rdc_bench.core.card_files import packaged, read_card
from rdc_bench.zoo.cards import every_card
from rdc_bench.zoo.parts import find_card
from rdc_bench.zoo.schema import ForeignWeights, ModelCard, ReportedSpec, RobustBenchSpec

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "published-models.md"
NAMES = sorted(path.stem for path in packaged("models").glob("*.yaml"))


def from_elsewhere(name: str) -> bool:
    return any(
        isinstance(part.card.model, ReportedSpec | RobustBenchSpec)
        or isinstance(getattr(part.card.model, "weights", None), ForeignWeights)
        for part in every_card(find_card(name))
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_the_card_says(name):
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}` |")]
    card = read_card(packaged("models") / f"{name}.yaml", ModelCard)
    assert bool(lines) >= from_elsewhere(name)
    quoted = sorted((cells[3], cells[6]) for line in lines if len(cells := [c.strip() for c in line.split("|")]) == 9)
    assert quoted == sorted((figure.percent, figure.source) for figure in card.reported)
