"""Shards on a Ray cluster, one Ray task each.

The cluster is the one that this process is connected to (``ray.init`` was called), or that ``RAY_ADDRESS`` names, or else one
that is started on this machine and ends with the run.

Everything is resolved and loaded here and then shipped through Ray: the plan with its images, each model with its weights, and
the sources of plugin files. Workers need the same packages as this process and no shared disk. A worker keeps what it was
shipped for the shards to come.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import importlib
import itertools
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterator
from dataclasses import replace
from importlib import metadata
from typing import Any, NamedTuple, NoReturn

import ray
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from rdc_bench.attacks import Attack
from rdc_bench.core.errors import UserError, first_line
from rdc_bench.core.registry import PluginSource, load_plugin_source, plugin_sources
from rdc_bench.evaluation.engines import Known
from rdc_bench.evaluation.execute import Executor, Task
from rdc_bench.evaluation.shards import Given, Job
from rdc_bench.results.store import Shard

#: How often a shard is begun again after the worker that computed it was lost.
RETRIES = 2

#: What Ray raises when it has lost a shard in spite of the retries.
LOST = (WorkerCrashedError, NodeDiedError, OutOfMemoryError, ObjectLostError)

#: Shards under way for each worker: one is being computed, one waits.
AHEAD = 2

#: Packages that decide numbers: the run's manifest has the versions of this process.
SAME = ("rdc-bench", "torch", "numpy", "pyautoattack")


class Shipment(NamedTuple):
    """What a worker needs besides the job. The plan and the model are references to Ray's object store."""

    versions: tuple[str, ...]
    folder: str
    plugins: tuple[PluginSource, ...]
    plan: ray.ObjectRef[Any]
    model: ray.ObjectRef[Any]
    name: str
    repeats: int
    draws: int


class Ready(NamedTuple):
    """A task, and what it builds on."""

    task: Task
    given: Given


def finished(tasks: Iterator[Task], known: Known) -> Generator[tuple[Job, Shard], None, None]:
    """Every task's shard, as they are finished. See :class:`rdc_bench.evaluation.engines.Engine`.

    A shard whose worker is lost is tried again ``RETRIES`` times. Then the attack counts as failed on its images.

    Raises: ``UserError`` when there is no cluster or nothing on it to compute with, something cannot be shipped, or a clean
        evaluation is lost.
    """
    first = next(tasks, None)
    if first is None:  # everything is done already
        return
    device = first.executor.plan.config.device
    if device.startswith("cuda:"):
        raise UserError(f"device {device!r}: engine 'ray' gives each worker a GPU of its own; use --device cuda")
    with _cluster():
        yield from _on_cluster(first, tasks, known)


def _on_cluster(first: Task, others: Iterator[Task], known: Known) -> Generator[tuple[Job, Shard], None, None]:
    plan = first.executor.plan
    gpu = plan.config.device == "cuda"
    resource = "GPU" if gpu else "CPU"
    if not ray.cluster_resources().get(resource):
        raise UserError(f"engine 'ray': the cluster has no {resource}")
    compute = ray.remote(num_cpus=1, num_gpus=int(gpu), max_retries=RETRIES)(computed)
    ship = functools.partial(_shipped, plan=_put(replace(plan, models=[]), "the plan"), plugins=plugin_sources())
    shipments: dict[int, Shipment] = {}
    tasks = itertools.chain([first], others)
    waiting: list[Task] = []
    under_way: dict[ray.ObjectRef[Any], Ready] = {}
    try:
        while True:
            room = AHEAD * max(1, ray.cluster_resources().get(resource, 0))  # a cluster may lose its last node and gain others
            while len(under_way) < room and (ready := _next(tasks, waiting, known)):
                task, given = ready
                number = task.job.model
                if number not in shipments:
                    shipments[number] = ship(task.executor)
                under_way[compute.remote(task.job, given, shipments[number])] = ready
            if not under_way:
                return
            (done,), _ = ray.wait(list(under_way), num_returns=1)
            ready = under_way.pop(done)
            yield ready.task.job, _result(done, ready)
    finally:
        for reference in under_way:
            ray.cancel(reference, force=True)


def computed(job: Job, given: Given, shipment: Shipment) -> Shard:
    """A shard; this runs on a worker."""
    here = _versions()
    if here != shipment.versions:
        raise UserError(f"engine 'ray': a worker has {', '.join(here)}, not {', '.join(shipment.versions)}")
    with contextlib.suppress(OSError):  # another machine may lack it
        os.chdir(shipment.folder)
    for plugin in shipment.plugins:
        load_plugin_source(plugin)
    plan, model = _fetched(shipment.plan), _fetched(shipment.model)
    executor = Executor(plan, model, shipment.name, shipment.repeats, shipment.draws)
    return executor.shard(job, given)


@functools.lru_cache(maxsize=3)
def _fetched(reference: ray.ObjectRef[Any]) -> Any:
    """Something shipped. A worker holds the plan and two models, as the shards of one model follow on those of another."""
    return ray.get(reference)


def _next(tasks: Iterator[Task], waiting: list[Task], known: Known) -> Ready | None:
    """A task that can be begun, if there is one; those that build on shards which are not finished go to ``waiting``."""
    for place, task in enumerate(waiting):
        given = known.given(task.job)
        if given is not None:
            return Ready(waiting.pop(place), given)
    for task in tasks:
        given = known.given(task.job)
        if given is not None:
            return Ready(task, given)
        waiting.append(task)
    return None


def _result(done: ray.ObjectRef[Any], ready: Ready) -> Shard:
    task, given = ready
    try:
        shard: Shard = ray.get(done)
    except RayTaskError as error:
        _raise_cause(error)
    except LOST as error:
        reason = f"lost with its worker {1 + RETRIES} times: {first_line(error)}"
        if task.job.attack:
            return task.executor.lost(task.job, given, reason)
        images = f"images {task.job.start} to {task.job.stop - 1}"
        raise UserError(f"engine 'ray': clean evaluation of {task.executor.name!r}, {images}: {reason}") from error
    return shard


def _raise_cause(error: RayTaskError) -> NoReturn:
    """What the worker raised, as it would have been raised here."""
    raise error.cause if isinstance(error.cause, Exception) else error


@contextlib.contextmanager
def _cluster() -> Iterator[None]:
    """Connected to a cluster. What Ray prints about a cluster of ours, or one joined here, goes to stderr."""
    if ray.is_initialized():
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        try:
            _connect(os.environ.get("RAY_ADDRESS"))
            yield
        finally:
            ray.shutdown()


def _connect(address: str | None) -> None:
    """Connect, and keep the handler of SIGTERM that was set before: ray puts one of its own in its place."""
    handler = signal.getsignal(signal.SIGTERM)
    _join(address)
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _join(address: str | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address or address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        ray.init(address="local", include_dashboard=False, _system_config={"task_oom_retries": RETRIES}, **quiet)
        return
    try:
        _knock(address)
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"engine 'ray': no cluster to join at RAY_ADDRESS {address}: {first_line(error)}") from error


def _knock(address: str) -> None:
    """Raise ``OSError`` when nothing listens at ``host:port``; Ray would try for minutes. Other forms of address pass."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _shipped(executor: Executor, *, plan: ray.ObjectRef[Any], plugins: tuple[PluginSource, ...]) -> Shipment:
    model = _put(executor.model, f"model {executor.name!r}")
    return Shipment(_versions(), os.getcwd(), plugins, plan, model, executor.name, executor.repeats, executor.draws)


def _put(thing: Any, what: str) -> ray.ObjectRef[Any]:
    try:
        return ray.put(thing)
    except (TypeError, RuntimeError, AttributeError, pickle.PicklingError) as error:
        raise UserError(f"engine 'ray': {what} cannot be sent to other processes: {first_line(error)}") from error


def _reduced(attack: Attack) -> str | tuple[Any, ...]:
    """How an attack is pickled: by its name in its module. A copy of its function would carry copies of what it refers to."""
    module, name = getattr(attack.function, "__module__", "__main__"), getattr(attack.function, "__qualname__", "")
    if module != "__main__" and getattr(sys.modules.get(module), name, None) is attack:
        return _named, (module, name)
    return attack.__reduce_ex__(pickle.HIGHEST_PROTOCOL)


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


copyreg.pickle(Attack, _reduced)


def _versions() -> tuple[str, ...]:
    return tuple(f"{name} {metadata.version(name)}" for name in SAME)
