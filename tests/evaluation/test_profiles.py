from __future__ import annotations

import pytest

from rdc_bench.attacks import ATTACKS
from rdc_bench.evaluation.profiles import PROFILES, default_attacks
from rdc_bench.threats import list_threats, make_threat


@pytest.mark.parametrize("profile", list(PROFILES))
@pytest.mark.parametrize("name", list_threats())
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_every_threat_has_attacks_that_work_under_it(profile: str, name: str, shape: tuple[int, ...]) -> None:
    if name == "corruptions":
        pytest.importorskip("imagecorruptions")
    threat, _ = make_threat(name, None, shape)
    chosen = default_attacks(profile, threat.kind)
    assert chosen
    for attack, options in chosen.items():
        assert threat.kind in ATTACKS.get(attack).threats
        ATTACKS.get(attack).options(options)
