"""Does one step do better than many?

Many small steps can follow what one large step cannot. Where one step breaks more, the loss surface is too rough for its
gradient to be followed (Athalye et al. 2018, arXiv 1802.00420, section 3.1: "one-step attacks perform better than iterative
attacks").
"""

from __future__ import annotations

from rdc_bench.diagnostics.outcome import Outcome
from rdc_bench.diagnostics.rivals import against_white_box
from rdc_bench.diagnostics.subject import Subject
from rdc_bench.results.diagnosis import Verdict

SAYS: dict[Verdict, str] = {
    "pass": "many steps find at least what one step finds",
    "warn": "one step finds more than many, though that may be chance",
    "fail": "one step beats many: the gradient cannot be followed",
}


def examine(subject: Subject) -> Outcome:
    """The fast gradient method against the white-box attack."""
    return against_white_box(subject, {"one step (FGSM)": subject.survives(subject.attack("fgsm"))}, SAYS)
