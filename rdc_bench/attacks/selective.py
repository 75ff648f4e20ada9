"""An attack on those draws of a random model that break together, in the spirit of DiffHammer (Wang et al., NeurIPS 2024).

Expectation over transformation follows the mean gradient. Where draws are vulnerable in different directions, the mean serves
none of them: it stalls between the groups, or follows one whose gradients are large and which no step will ever break. Here the
draws are first sorted into groups, and the gradient is that of one group.

Time and again the attack looks at many fresh draws of the model at the current point. Expectation-maximisation on their
gradient directions sorts them into two groups, as a mixture of von Mises–Fisher distributions of one concentration. For each
group, and for all draws together, a first-order prediction says which share of *all* draws the point of the ball that serves
the group best would fool. The group of the largest share is attacked for a few steps, along the exact gradient of its draws.

Gradients are grafted as in the paper: those of the survey only choose, and may be the cheap ones where the model offers them
(:mod:`rdc_bench.attacks.gradient`); those of the steps are back-propagated exactly, through a part of the draws. Unlike the
paper's, groups are found from gradients at the input, so that nothing need be known about the inside of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rdc_bench.attacks import ATTACKS, attack
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import differentiated
from rdc_bench.attacks.losses import margin
from rdc_bench.attacks.options import Count, StepSize
from rdc_bench.defenses.likelihood_maximization import Gradient
from rdc_bench.randomness import Key, draws_for
from rdc_bench.threats import LpThreat

#: Rounds of expectation-maximisation; two groups of a few draws settle sooner.
ROUNDS = 10
#: Concentration of a group's gradient directions: a cosine higher by 0.2 makes a group 7 times likelier.
CONCENTRATION = 10.0
#: Weight of the mean margin against the share of fooled draws, between points that fool as many.
TIE = 0.01


class Survey(NamedTuple):
    """Many draws of the model at one point: margins (M, B), positive when fooled, and their gradients (M, B, C, H, W)."""

    margins: Tensor
    gradients: Tensor


def _no_more_than_drawn(options: Mapping[str, Any], threat: Any, num_classes: int) -> str:
    chosen, draws = options["chosen"], options["draws"]
    return f"chosen is at most draws, and {chosen} is more than {draws}" if chosen > draws else ""


@attack("selective", threats=["linf", "l2"], check=_no_more_than_drawn)
def selective(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 50,
    step_size: StepSize = 0.0,
    draws: Count = 16,
    chosen: Count = 8,
    period: Count = 5,
    restarts: Count = 1,
    gradient: Gradient = "exact",
) -> Tensor:
    """Attacks the draws of a random model that break together (after DiffHammer, Wang et al. 2024); PGD on other models.

    Options:
        steps: per restart. step_size: 0 means 2.5 eps / steps. restarts: independent random starts.
        draws: fresh draws looked at in a survey. period: steps between surveys. chosen: draws of the group that steps follow.
        gradient: of the steps: exact, bpda or surrogate, where the model leaves the choice. Surveys take bpda there.
    """
    if not getattr(model, "stochastic", False):
        options = {"steps": steps, "step_size": step_size, "restarts": restarts, "gradient": gradient}
        found: Tensor = ATTACKS.get("pgd").function(model, x, y, threat, generators=generators, loss="margin", **options)
        return found
    step_size = step_size or 2.5 * threat.eps / steps
    cheap, exact = differentiated(model, "bpda"), differentiated(model, gradient)
    best = Best(model, x)
    scale: Tensor | None = None
    for _ in range(restarts):
        point = threat.random_start(x, generators)
        for step in range(steps + 1):
            if step % period == 0 or step == steps:
                keys = _fresh_keys(generators, draws)
                survey = _survey(cheap, point, y, keys)
                if scale is None:
                    scale = survey.margins.abs().mean(dim=0).clamp_min(1e-12)
                best.offer(point, _value(survey, scale), torch.zeros_like(y[:, None]), y)
                weights = _shared_vulnerability(survey, x, point, threat)
                top = weights.topk(chosen, dim=0)
                followed = [keys[j * len(x) + i] for row in top.indices.tolist() for i, j in enumerate(row)]
            if step < steps:
                uphill = _weighted_gradient(exact, point, y, followed, top.values)
                point = threat.project(x, point + step_size * threat.steepest(uphill, x))
    return best.points


def _fresh_keys(generators: Sequence[torch.Generator], draws: int) -> list[Key]:
    """Keys of new draws of the model, by which they can be drawn again: for all images, then again for all images."""
    seeds = [int(torch.randint(2**62, (), generator=g)) for g in generators]
    return [("selective", seed, j) for j in range(draws) for seed in seeds]


def _survey(model: nn.Module, point: Tensor, y: Tensor, keys: Sequence[Key]) -> Survey:
    """The model at ``point`` under each of the draws ``keys``."""
    draws = len(keys) // len(y)
    copies = point.repeat(draws, 1, 1, 1).requires_grad_(True)
    with torch.enable_grad(), draws_for(keys):
        margins = margin(model(copies), y.repeat(draws))
        (gradients,) = torch.autograd.grad(margins.sum(), copies)
    return Survey(margins.detach().unflatten(0, (draws, -1)), gradients.unflatten(0, (draws, -1)))


def _value(survey: Survey, scale: Tensor) -> Tensor:
    """Share of fooled draws, (B,); between equal shares the higher mean margin, in units of ``scale``, decides."""
    share = (survey.margins > 0).double().mean(dim=0)
    return (share + TIE * torch.sigmoid(survey.margins.mean(dim=0) / scale)).to(scale)


def _groups(survey: Survey) -> tuple[Tensor, Tensor]:
    """Two groups of draws by expectation-maximisation: responsibilities (M, B, 2) and mean directions (B, 2, d)."""
    directions = _unit(survey.gradients.flatten(2))
    images = torch.arange(directions.shape[1], device=directions.device)
    first = directions[survey.margins.argmax(dim=0), images]  # the most vulnerable draw, and the one that agrees least
    second = directions[torch.einsum("mbd,bd->mb", directions, first).argmin(dim=0), images]
    centres, shares = torch.stack([first, second], dim=1), torch.full_like(first[:, :2], 0.5)
    for _ in range(ROUNDS):
        agreement = torch.einsum("mbd,bkd->mbk", directions, centres)
        memberships = torch.softmax(CONCENTRATION * agreement + shares.clamp_min(1e-6).log(), dim=2)
        centres = _unit(torch.einsum("mbk,mbd->bkd", memberships, directions))
        shares = memberships.mean(dim=0)
    return memberships, centres


def _shared_vulnerability(survey: Survey, x: Tensor, point: Tensor, threat: LpThreat) -> Tensor:
    """Weights of the draws to follow, (M, B): of the group whose best point is predicted to fool the most draws.

    The prediction is of first order, from ``point`` to the point of the ball that is farthest along the group's mean direction.
    All draws together are a candidate too, and win ties: then this is expectation over transformation.
    """
    memberships, centres = _groups(survey)
    everyone = torch.ones_like(memberships[:, :, :1])
    candidates = torch.cat([everyone, memberships], dim=2)  # (M, B, 3)
    mean_direction = survey.gradients.mean(dim=0).flatten(1)[:, None]
    directions = torch.cat([mean_direction, centres], dim=1)  # (B, 3, d)
    predicted = []
    for direction in directions.unbind(dim=1):
        best_point = threat.project(x, x + threat.eps * threat.steepest(direction.view_as(x), x))
        gain = torch.einsum("mbd,bd->mb", survey.gradients.flatten(2), (best_point - point).flatten(1))
        predicted.append(((survey.margins + gain) > 0).double().mean(dim=0))
    chosen = torch.stack(predicted).argmax(dim=0)
    return candidates.gather(2, chosen[None, :, None].expand(len(candidates), -1, 1))[:, :, 0]


def _weighted_gradient(model: nn.Module, point: Tensor, y: Tensor, keys: Sequence[Key], weights: Tensor) -> Tensor:
    """Gradient (B, C, H, W) of the margin, averaged over the draws ``keys`` with ``weights`` (draws, B)."""
    point = point.detach().requires_grad_(True)
    with torch.enable_grad(), draws_for(keys):
        margins = margin(model(point.repeat(len(weights), 1, 1, 1)), y.repeat(len(weights))).view_as(weights)
        (gradient,) = torch.autograd.grad((weights * margins).sum(), point)
    return gradient


def _unit(t: Tensor) -> Tensor:
    return t / t.norm(dim=-1, keepdim=True).clamp_min(1e-12)
