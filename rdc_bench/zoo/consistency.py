"""Whether a card fits its parts, and a dataset: checked before anything is loaded or downloaded."""

from __future__ import annotations

from collections.abc import Sequence

from rdc_bench.core.errors import UserError
from rdc_bench.zoo.cards import LoadedCard
from rdc_bench.zoo.schema import ClassifierSpec, DenoiserSpec, DiffusionClassifierSpec, LibrarySpec, ModelCard, RDCSpec

Shape = tuple[int, int, int]
#: Names of classes that a message lists.
SHOWN = 12


def check_parts(loaded: LoadedCard) -> LoadedCard:
    """The same card. Raises ``UserError`` where a card contradicts its own configuration, or it and a part do not fit."""
    card, spec = loaded.card, loaded.card.model
    for name, part in loaded.parts.items():
        if part.card.image_shape != card.image_shape:
            raise UserError(
                f"{loaded.path}: image_shape is {_shown(card.image_shape)}, but that of its part {name!r} is "
                f"{_shown(part.card.image_shape)}"
            )
        check_parts(part)
    if isinstance(spec, ClassifierSpec):
        _agree(loaded, "num_classes", card.num_classes, spec.config.get("num_classes", card.num_classes))
    elif isinstance(spec, DenoiserSpec):
        channels, height, width = card.image_shape
        _agree(loaded, "img_channels", channels, spec.config.get("img_channels", channels))
        _agree(loaded, "img_resolution", (height, width), (spec.config.get("img_resolution", height),) * 2)
    elif isinstance(spec, LibrarySpec):
        for field, values in (("mean", spec.mean), ("std", spec.std)):
            if len(values) != card.image_shape[0]:
                raise UserError(
                    f"{loaded.path}: {field} has {len(values)} values for images of {card.image_shape[0]} channels: one each"
                )
    elif isinstance(spec, RDCSpec):
        classifier = loaded.parts[spec.classifier].card
        if classifier.num_classes != card.num_classes:
            raise UserError(
                f"{loaded.path}: num_classes is {card.num_classes}, but its classifier {spec.classifier!r} tells "
                f"{classifier.num_classes} classes apart"
            )
    elif isinstance(spec, DiffusionClassifierSpec):
        _check_labels(loaded, spec)
    return loaded


def check_dataset(card: ModelCard, dataset: str, shape: Shape, classes: Sequence[str]) -> None:
    """Raise ``UserError`` for a model whose images or number of classes are not the dataset's."""
    if card.image_shape != shape or card.num_classes != len(classes):
        named = f" ({', '.join(classes[:SHOWN])}{', …' if len(classes) > SHOWN else ''})"
        raise UserError(
            f"model {card.name!r} takes {_shown(card.image_shape)} images of {card.num_classes} classes; "
            f"{dataset} has {_shown(shape)} images of {len(classes)}{named if card.num_classes != len(classes) else ''}"
        )


def _check_labels(loaded: LoadedCard, spec: DiffusionClassifierSpec) -> None:
    """The denoiser must know a label for each class, and no class may be left over unless labels are named."""
    denoiser = loaded.parts[spec.denoiser].card.model
    if not isinstance(denoiser, DenoiserSpec):
        raise UserError(f"{loaded.path}: {spec.denoiser!r} is no denoiser (its card's kind is {denoiser.kind!r})")
    known = denoiser.config.get("label_dim", 0)
    if spec.class_labels is None:
        if known != loaded.card.num_classes:
            raise UserError(
                f"{loaded.path}: num_classes is {loaded.card.num_classes}, but its denoiser {spec.denoiser!r} knows {known}"
            )
    elif len(spec.class_labels) != loaded.card.num_classes:
        raise UserError(f"{loaded.path}: {len(spec.class_labels)} class_labels for {loaded.card.num_classes} classes")
    elif not all(0 <= label < known for label in spec.class_labels):
        raise UserError(f"{loaded.path}: class_labels are not all from 0 to {known - 1}, the labels of {spec.denoiser!r}")


def _agree(loaded: LoadedCard, field: str, stated: object, configured: object) -> None:
    if stated != configured:
        raise UserError(f"{loaded.path}: the card says {stated}, but model.config.{field} means {configured}")


def _shown(shape: Shape) -> str:
    return "×".join(map(str, shape))
