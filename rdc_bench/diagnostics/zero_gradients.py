"""Is there a gradient to follow at all?

A model that is cut off from its input, or that rounds it, has the gradient zero; one whose softmax saturates has a
cross-entropy whose gradient underflows (Carlini & Wagner 2017, arXiv 1608.04644, on defensive distillation).
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from rdc_bench.attacks.losses import Objective, cross_entropy, margin
from rdc_bench.diagnostics.outcome import Outcome, distribution, share_verdict, worse
from rdc_bench.diagnostics.subject import Subject
from rdc_bench.results.diagnosis import Plot, Verdict

#: Shares of images without a usable gradient that call for a warning, and for a failure.
WARN, FAIL = 0.05, 0.25
#: A norm below which float32 arithmetic has lost a gradient: products of two such numbers vanish.
UNDERFLOW = 1e-20


def examine(subject: Subject) -> Outcome:
    """Norms of the gradients of the margin and of the cross-entropy at the clean images."""
    norms = {name: _norms(subject, objective) for name, objective in (("margin", margin), ("cross-entropy", cross_entropy))}
    lost = {name: ~(norm > UNDERFLOW) for name, norm in norms.items()}
    verdicts: dict[str, Verdict] = {}
    shares = {}
    for name, images in lost.items():
        verdicts[name], shares[name] = share_verdict(images, warn=WARN, fail=FAIL)
    figures = {f"without a gradient of the {name}": share.value for name, share in shares.items()}
    figures |= {f"median norm, {name}": float(np.median(norm)) for name, norm in norms.items()}
    plot = Plot(
        x_label="share of images in %",
        y_label="norm of the gradient",
        lines=[distribution(name, np.maximum(norm, UNDERFLOW / 100)) for name, norm in norms.items()],
        log_y=True,
        limit=UNDERFLOW,
    )
    return Outcome(worse(*verdicts.values()), figures, _says(verdicts), plot)


def _says(verdicts: dict[str, Verdict]) -> str:
    if verdicts["margin"] != "pass":
        return "the model is cut off from its input or constant around it: attacks that follow its gradient go nowhere"
    if verdicts["cross-entropy"] != "pass":
        return (
            "softmax saturates and the gradient of the cross-entropy underflows: attack the margin or the logits' ratio (DLR)"
        )
    return "both losses have gradients to follow"


def _norms(subject: Subject, objective: Objective) -> np.ndarray:
    """Norm of the gradient per image, zero where it is not finite, (B,)."""
    gradient: Tensor = subject.evaluate(subject.x, objective, "zero-gradients").gradient
    norms = gradient.double().flatten(1).norm(dim=1).nan_to_num(nan=0.0, posinf=0.0)
    return norms.cpu().numpy()
