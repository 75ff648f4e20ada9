"""Do images made for another model do better than those made for this one?

An attacker who sees the model's own gradient has more to go by than one who attacks a substitute and hopes. Where the
substitute's images break more, the gradient is masked (Papernot et al. 2017, arXiv 1602.02697; Carlini et al. 2019, arXiv
1902.06705, section 4).
"""

from __future__ import annotations

from rdc_bench.diagnostics.outcome import Outcome
from rdc_bench.diagnostics.rivals import against_white_box
from rdc_bench.diagnostics.subject import STEPS, Subject
from rdc_bench.results.diagnosis import Plot, Verdict

SAYS: dict[Verdict, str] = {
    "pass": "the model's own gradient finds at least what transfer from other models finds",
    "warn": "transfer from other models finds more than the model's own gradient, though that may be chance",
    "fail": "transfer from other models beats the model's own gradient: the gradient is masked",
}


def examine(subject: Subject) -> Outcome:
    """PGD on each substitute, its images shown to the model; all of them together against the white-box attack."""
    if not subject.surrogates:
        says = "no other model of this dataset is here to transfer from: name one with --surrogate"
        return Outcome("warn", {}, says, Plot(x_label="", y_label="robust accuracy in %", lines=[]))
    survives = {
        f"transfer from {name}": subject.survives(subject.attack("pgd", model=surrogate, steps=STEPS))
        for name, surrogate in subject.surrogates.items()
    }
    return against_white_box(subject, survives, SAYS)
