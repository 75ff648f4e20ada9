"""AutoAttack with the interface that RobustBench calls, on the library ``pyautoattack``.

RobustBench was written for a package ``autoattack`` (Croce & Hein 2020, arXiv 2003.01690) that no package index carries.
``pyautoattack`` holds the same attacks, but its class takes other arguments and returns something else. Only the interface is
translated here; the attacks are the library's.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyautoattack
import torch
from pyautoattack import checks
from torch import Tensor, nn

LOGGER = "auto-attack"


class AutoAttack(pyautoattack.AutoAttack):
    """An ensemble of attacks that is called like ``autoattack.AutoAttack``.

    Args:
        model: images in [0, 1] (B, C, H, W) to logits, in eval mode. norm: ``Linf``, ``L2`` or ``L1``. eps: radius.
        seed: of every attack; None takes the clock, and a run then cannot be repeated.
        verbose: print what happens on stdout, and append it to the file ``log_path`` if there is one.
        attacks_to_run: names, for version ``custom`` alone. version: ``standard``, ``plus``, ``rand`` or ``custom``.
        device: where batches are computed.
    Raises: ``NotImplementedError`` for TensorFlow models, which ``pyautoattack`` does not take.
    """

    attacks_to_run: list[str]

    def __init__(
        self,
        model: nn.Module,
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: torch.device | str = "cuda",
        log_path: str | Path | None = None,
    ) -> None:
        if is_tf_model:
            raise NotImplementedError("pyautoattack attacks torch models only")
        attacks = list(attacks_to_run) if attacks_to_run or version == "custom" else None
        super().__init__(model, attacks=attacks, device=device, eps=eps, norm=norm, seed=seed, version=version)
        self.verbose = verbose
        self.log_path = log_path

    def run_standard_evaluation(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: Path | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attack images (N, C, H, W) with labels (N,), ``bs`` at a time.

        Returns: the adversarial images, the clean ones where nothing succeeded; with ``return_labels`` also the labels
            predicted for them.
        Raises: ``NotImplementedError`` when ``state_path`` is given: ``pyautoattack`` writes states that it cannot read again,
            and the evaluation would fail at its end.
        """
        if state_path is not None:
            raise NotImplementedError(
                "the state files of pyautoattack cannot be resumed; leave state_path out (`rdc-bench run` can be resumed)"
            )
        with self._logged(), _contained():
            x_adv, y_adv = super().run_standard_evaluation(x_orig, y_orig, batch_size=bs)
        return (x_adv, y_adv) if return_labels else x_adv

    def run_standard_evaluation_individual(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False
    ) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        """Every attack by itself on all images, keyed by attack; values as in :meth:`run_standard_evaluation`."""
        attacks = list(self.attacks_to_run)
        try:
            found = {}
            for attack in attacks:
                self.attacks_to_run = [attack]
                found[attack] = self.run_standard_evaluation(x_orig, y_orig, bs, return_labels)
            return found
        finally:
            self.attacks_to_run = attacks

    def set_version(self, version: str = "standard") -> None:
        """Choose the attacks and their parameters of a version."""
        self._set_version(version)

    @contextlib.contextmanager
    def _logged(self) -> Iterator[None]:
        """Show what the library logs, for the length of one evaluation. Without ``verbose`` its warnings alone are seen."""
        if not self.verbose:
            yield
            return
        handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
        if self.log_path is not None:
            handlers.append(logging.FileHandler(self.log_path))
        logger = logging.getLogger(LOGGER)
        level, propagate = logger.level, logger.propagate
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        for handler in handlers:
            logger.addHandler(handler)
        try:
            yield
        finally:
            for handler in handlers:
                logger.removeHandler(handler)
                handler.close()
            logger.setLevel(level)
            logger.propagate = propagate


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Let the library's check for dynamic defences judge this model alone, and give back the trace that it ends.

    It counts calls of the model's autograd in a counter that nobody resets, so that every model after a dynamic one is called
    dynamic too; and it ends the tracing of debuggers and coverage tools.
    """
    trace = sys.gettrace()
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
    try:
        yield
    finally:
        checks.funcs.update(dict.fromkeys(checks.funcs, 0))
        sys.settrace(trace)
