"""What a repository of ours holds on the Hub: ``config.json``, cards, their weights, and a README.

``config.json`` names the main card; cards name one another and their weights by bare names, so that every file lies at the top
and the files that belong to a model follow from the cards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from rdc_bench.core.card_files import NAME, Strict
from rdc_bench.core.errors import UserError
from rdc_bench.zoo.cards import LoadedCard
from rdc_bench.zoo.schema import ClassifierSpec, DenoiserSpec, DiffusionClassifierSpec, LibrarySpec, RDCSpec, Weights

CONFIG, README = "config.json", "README.md"
#: How this package is called in ``config.json``, and introduces itself to the Hub.
LIBRARY: Final = "rdc-bench"


class RepositoryConfig(Strict):
    """``config.json``, which may say more than this. ``card``: file name of the main card."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    library_name: Literal["rdc-bench"]
    schema_version: Literal[1]
    card: Annotated[str, Field(pattern=rf"^{NAME.pattern}\.yaml$", max_length=105)]

    @property
    def name(self) -> str:
        """The main card's name."""
        return self.card.removesuffix(".yaml")

    def content(self) -> bytes:
        """The file."""
        return json.dumps(self.model_dump(), indent=1).encode() + b"\n"


def read_config(path: Path, hub: str) -> RepositoryConfig:
    """The validated ``config.json`` of the repository ``hub``."""
    try:
        return RepositoryConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{hub}: its {CONFIG} is not that of an rdc-bench model ({field or 'file'}: {first['msg']}); "
            "`rdc-bench models push` writes one"
        ) from error


def weights_beside(loaded: LoadedCard) -> Weights | None:
    """The safetensors file that a card names beside itself, None where it only puts other cards together.

    Raises: ``UserError`` for any other kind of card: what it needs cannot lie in a repository.
    """
    spec = loaded.card.model
    if isinstance(spec, DiffusionClassifierSpec | RDCSpec):
        return None
    if isinstance(spec, ClassifierSpec | DenoiserSpec | LibrarySpec) and isinstance(spec.weights, Weights):
        return spec.weights
    raise UserError(
        f"{loaded.hub or loaded.path}: card {loaded.card.name!r} ({spec.kind}) names no safetensors file beside it, "
        "which is all that a model on the Hub may use; `rdc-bench models convert` makes one"
    )
