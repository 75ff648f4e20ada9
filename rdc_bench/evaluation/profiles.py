"""Named amounts of effort: how many images, how many repeats, which attacks."""

from __future__ import annotations

from typing import Any, NamedTuple

from rdc_bench.attacks import ATTACKS
from rdc_bench.errors import UserError, unknown_name

#: What `run` evaluates when no model is named.
DEFAULT_DATASET = "fashion-mnist"
DEFAULT_MODELS = {
    "fashion-mnist": [
        "rdc-fashion-mnist",
        "dc-fashion-mnist",
        "lm-fashion-mnist",
        "standard-fashion-mnist",
        "at-linf-fashion-mnist",
        "at-l2-fashion-mnist",
        "trades-linf-fashion-mnist",
    ],
    "cifar10": [
        "rdc-cifar10",
        "dc-cifar10",
        "lm-cifar10",
        "standard-cifar10",
        "at-linf-cifar10",
        "at-l2-cifar10",
        "trades-linf-cifar10",
    ],
}


class Witness(NamedTuple):
    """An attack that needs no gradient of the model, for images that all others left standing.

    ``if_doubted``: only where the gradients of the others are in doubt already.
    """

    attack: str
    options: dict[str, Any]
    if_doubted: bool = False


class Profile(NamedTuple):
    """``attacks``: per threat kind, the attacks with the options that differ from their defaults. ``witnesses``: per kind.

    Kinds without witnesses of their own have those of the key ``""``.
    """

    note: str
    n: int
    repeats: int
    attacks: dict[str, dict[str, dict[str, Any]]]
    witnesses: dict[str, list[Witness]]


def _norms(attacks: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """The same attacks under ℓ∞ and ℓ2."""
    return {"linf": attacks, "l2": attacks}


def _jpeg(options: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """PGD on JPEG coefficients under both of their norms."""
    return {"jpeg-linf": {"jpeg": options}, "jpeg-l2": {"jpeg": options}}


def _witnesses(ensemble: dict[str, Any], *, quick: bool) -> dict[str, list[Witness]]:
    """What needs no gradient. ``quick``: images made for the baselines, and a search only where gradients are in doubt.

    A short search is no witness: 200 queries of Square leave 68.8 % where 20.3 % is true, whether or not gradients are right.
    """
    transfer = Witness("transfer", {"together": True, "steps": 20})
    search = {"linf": Witness("ensemble", ensemble), "l2": Witness("ensemble", ensemble), "l1": Witness("square", {})}
    if quick:
        search = {kind: witness._replace(if_doubted=True) for kind, witness in search.items()}
        return {
            **{kind: [transfer, witness] for kind, witness in search.items()},
            "rotation-translation": [Witness("rotation-translation-random", {"queries": 100})],
            "corruptions": [],  # the attack itself takes no gradient
            "": [transfer, Witness("nes", {"steps": 20}, if_doubted=True)],
        }
    return {
        **{kind: [witness] for kind, witness in search.items()},
        "rotation-translation": [Witness("rotation-translation-random", {"queries": 100})],
        "corruptions": [],
        "": [transfer, Witness("nes", {"steps": 20})],
    }


PROFILES = {
    "quick": Profile(
        note="a quick look: few images and a short attack, so robust accuracies are upper bounds with wide intervals",
        n=32,
        repeats=4,
        attacks={
            **_norms({"pgd": {"steps": 8}}),
            "l1": {"apgd-l1": {"steps": 25}},
            "rotation-translation": {"rotation-translation": {"steps": 8, "restarts": 2}},
            **_jpeg({"steps": 16}),
            "perceptual": {"lpa": {"steps": 10, "searches": 3}},
            "recolor": {"recolor": {"steps": 16}},
            "elastic": {"elastic": {"steps": 16}},
            "fog": {"fog": {"steps": 16}},
            "patch": {"patch": {"steps": 8, "places": 2}},
            "snow": {"snow": {"steps": 16}},
            "gabor": {"gabor": {"steps": 16}},
            "low-frequency": {"low-frequency": {"steps": 16}},
            "corruptions": {"corruptions": {"draws": 1}},
            "stadv": {"stadv": {"steps": 12, "learning_rate": 0.02}},
        },
        witnesses=_witnesses({"eot": 2}, quick=True),
    ),
    "standard": Profile(
        note="a comparison worth quoting: adaptive white-box attacks with exact gradients",
        n=256,
        repeats=10,
        attacks={
            **_norms({"apgd-dlr": {"steps": 20}, "pgd": {"steps": 20}}),
            "l1": {"apgd-l1": {"steps": 40}, "pgd": {"steps": 20}},
            "rotation-translation": {
                "rotation-translation": {"steps": 10, "restarts": 4},
                "rotation-translation-grid": {"rotations": 7, "translations": 3},
            },
            **_jpeg({"steps": 40}),
            "perceptual": {"lpa": {"steps": 20}, "ppgd": {"steps": 20}},
            "recolor": {"recolor": {"steps": 40}},
            "elastic": {"elastic": {"steps": 40}},
            "fog": {"fog": {"steps": 40}},
            "patch": {"patch": {"steps": 20, "places": 3}},
            "snow": {"snow": {"steps": 20, "restarts": 2}},
            "gabor": {"gabor": {"steps": 20, "restarts": 2}},
            "low-frequency": {"low-frequency": {"steps": 40}},
            "corruptions": {"corruptions": {}},
            "stadv": {"stadv": {"steps": 40}},
        },
        witnesses=_witnesses({"eot": 2}, quick=False),
    ),
    "paper": Profile(
        note="the size of the RDC paper's table, under long attacks with expectation over transformation",
        n=512,
        repeats=10,
        attacks={
            **_norms(
                {
                    "apgd-ce": {"eot": 20},
                    "apgd-dlr": {"eot": 20},
                    "apgd-t": {},
                    "pgd": {"steps": 200, "eot": 10},
                    "square": {"queries": 1000},
                }
            ),
            "l1": {"apgd-l1": {"eot": 20}, "pgd": {"steps": 200, "eot": 10}, "square": {"queries": 1000}},
            "rotation-translation": {
                "rotation-translation": {"steps": 20, "restarts": 10, "eot": 4},
                "rotation-translation-grid": {},
            },
            **_jpeg({"steps": 200, "eot": 4}),
            "perceptual": {"lpa": {"steps": 40, "eot": 4}, "ppgd": {"steps": 40, "eot": 4}},
            "recolor": {"recolor": {"steps": 100, "eot": 4}},
            "elastic": {"elastic": {"steps": 200, "eot": 4}},
            "fog": {"fog": {"steps": 200, "eot": 4}},
            "patch": {"patch": {"steps": 100, "places": 5, "eot": 4}},
            "snow": {"snow": {"steps": 100, "restarts": 2, "eot": 4}},
            "gabor": {"gabor": {"steps": 100, "restarts": 2, "eot": 4}},
            "low-frequency": {"low-frequency": {"steps": 200, "eot": 4}},
            "corruptions": {"corruptions": {"eot": 4}},
            "stadv": {"stadv": {"steps": 100, "eot": 4}},
        },
        witnesses=_witnesses({}, quick=False),
    ),
}


def profile(name: str) -> Profile:
    """The profile called ``name``."""
    if name not in PROFILES:
        raise unknown_name("profile", name, PROFILES, f"Profiles: {', '.join(PROFILES)}.")
    return PROFILES[name]


def default_attacks(name: str, kind: str) -> dict[str, dict[str, Any]]:
    """The attacks of a profile under a threat kind; under a plugin's, which no profile has, every attack that works."""
    attacks = profile(name).attacks.get(kind) or {able: {} for able in attacks_under(kind)}
    if not attacks:
        raise UserError(f"no attack works under threat kind {kind!r}; register one for it")
    return attacks


def witnesses(name: str, kind: str) -> list[Witness]:
    """The witnesses of a profile that work under a threat kind."""
    of_each = profile(name).witnesses
    return [witness for witness in of_each.get(kind, of_each[""]) if kind in ATTACKS.get(witness.attack).threats]


def attacks_under(kind: str) -> list[str]:
    """The names of all attacks that work under a threat kind, plugins' too."""
    return [name for name in ATTACKS.names() if kind in ATTACKS.get(name).threats]
