"""Does an attack without gradients do better than one with them?

A gradient-free search knows less than a white-box attack and should break less. Where it breaks more, the gradient misleads
(Athalye et al. 2018, arXiv 1802.00420, section 3.1; Carlini et al. 2019, arXiv 1902.06705, section 4).
"""

from __future__ import annotations

from rdc_bench.diagnostics.outcome import Outcome
from rdc_bench.diagnostics.rivals import against_white_box
from rdc_bench.diagnostics.subject import Subject
from rdc_bench.results.diagnosis import Verdict

#: Queries an image, by whether the model is randomised: such a model is asked one image at a time, and often expensive.
QUERIES = {False: 500, True: 100}
SAYS: dict[Verdict, str] = {
    "pass": "the gradient finds at least what a search without gradients finds",
    "warn": "a search without gradients finds more than the gradient does, though that may be chance",
    "fail": "a search without gradients beats the gradient: the gradient misleads",
}


def examine(subject: Subject) -> Outcome:
    """The Square attack (Andriushchenko et al. 2020, arXiv 1912.00049) against the white-box attack."""
    queries = QUERIES[subject.stochastic]
    survives = subject.survives(subject.attack("square", queries=queries))
    return against_white_box(subject, {f"Square, {queries} queries": survives}, SAYS)
