"""The RobustBench plugin: our models become RobustBench's, and RobustBench's become ours.

Importing it does two things, both for this process alone. It supplies what the released ``robustbench`` needs and does not
bring (:func:`mend`), and it registers our models with it (:func:`register_models`)::

    import rdc_bench.robustbench  # first
    import robustbench

    model = robustbench.utils.load_model("rdc-cifar10", dataset="cifar10", threat_model="Linf")
    robustbench.benchmark(model, n_examples=16, dataset="cifar10", threat_model="Linf", eps=8 / 255)

The other direction needs no import: ``rdc_bench.load_model("robustbench:Wang2023Better_WRN-70-16")``. See
docs/how-to/use-robustbench.md.
"""

from __future__ import annotations

import importlib.util
import warnings

from rdc_bench.robustbench.mending import mend

if importlib.util.find_spec("robustbench") is None:
    raise ImportError("the package robustbench is not installed; pip install 'rdc-bench[robustbench]'", name="robustbench")
mend()
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports much that is deprecated
        import robustbench  # noqa: F401
except (ImportError, RuntimeError) as error:
    raise ImportError(
        f"the package robustbench cannot be imported ({error}); does torchvision fit the installed torch?", name="robustbench"
    ) from error

from rdc_bench.defenses.fixed_noise import fixed_noise  # noqa: E402
from rdc_bench.robustbench.local_data import use_local_cifar10  # noqa: E402
from rdc_bench.robustbench.ours import register, register_models  # noqa: E402

__all__ = ["fixed_noise", "mend", "register", "register_models", "use_local_cifar10"]

register_models()
