from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rdc_bench.attacks import ATTACKS, Attack, attack
from rdc_bench.core.errors import UserError
from rdc_bench.core.registry import Registry, load_plugin, load_plugin_source, plugin_sources
from rdc_bench.threats import LpThreat

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _restored_registry() -> Iterator[None]:
    held = dict(ATTACKS._entries)
    yield
    ATTACKS._entries.clear()
    ATTACKS._entries.update(held)


def install(site: Path, name: str, files: dict[str, str], entry_points: str) -> None:
    """Lay out a package as an installer does."""
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


PLUGIN = """
from rdc_bench import attack

@attack({name!r}, threats=["linf"])
def noise(model, x, y, threat, *, generator, scale: float = 1.0):
    "Uniform noise."
    return threat.random_start(x, [generator])
"""


def test_an_unknown_name_is_answered_with_close_ones() -> None:
    with pytest.raises(UserError, match=r"unknown attack 'apdg-ce'\. Did you mean 'apgd-ce'.*rdc-bench list attacks"):
        ATTACKS.get("apdg-ce")
    with pytest.raises(UserError, match=r"unknown attack 'zzzzzz'\. `rdc-bench"):
        ATTACKS.get("zzzzzz")


def test_a_name_claimed_twice_names_both_origins() -> None:
    registry: Registry[int] = Registry("thing", {"one": "math:pi"})
    registry.register("two", 2, "first-package")
    registry.register("two", 3, "first-package")
    assert registry.get("two") == 3
    with pytest.raises(UserError, match="thing 'two' is claimed by first-package and by second-package"):
        registry.register("two", 2, "second-package")
    with pytest.raises(UserError, match="thing 'one' is claimed by rdc_bench and by second-package"):
        registry.register("one", 1, "second-package")


def test_builtins_are_imported_when_asked_for() -> None:
    registry: Registry[float] = Registry("thing", {"pi": "math:pi", "missing": "no.such.module:x"})
    assert registry.names() == ["missing", "pi"]
    assert registry.get("pi") == pytest.approx(3.14159, abs=1e-5)


def test_importing_the_registry_of_attacks_does_not_import_torch() -> None:
    code = "import sys, rdc_bench.attacks; assert rdc_bench.attacks.list_attacks(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_builtin_attack_describes_itself() -> None:
    for name in ATTACKS.names():
        if ATTACKS.entry(name).origin == "rdc_bench":
            found = ATTACKS.get(name)
            assert found.name == name
            assert found.threats
            assert len(found.summary) > 10
            assert found.gradient in ("white-box", "black-box")


def test_options_are_checked() -> None:
    pgd = ATTACKS.get("pgd")
    assert pgd.options({"steps": 3})["steps"] == 3
    with pytest.raises(UserError, match=r"unknown option of attack pgd 'step'\. Did you mean .*'steps'.*It takes: steps"):
        pgd.options({"step": 3})


def test_an_attack_may_be_a_class_or_take_one_generator() -> None:
    @attack("a-class", threats=["linf"])
    class Stay:
        """Stays where it is."""

        def __call__(self, model: Any, x: Any, y: Any, threat: Any, *, generator: Any, times: int = 1) -> Any:
            return x

    made = ATTACKS.get("a-class")
    assert made is Stay
    assert not made.batched
    assert made.defaults == {"times": 1}
    assert made.summary == "Stays where it is."


def test_an_attack_whose_draws_cannot_be_controlled_is_refused() -> None:
    with pytest.raises(UserError, match="takes neither `generator` nor `generators`"):
        attack("wild", threats=["linf"])(lambda model, x, y, threat: x)
    with pytest.raises(UserError, match="option 'steps' has no default"):
        attack("bare", threats=["linf"])(lambda model, x, y, threat, *, generator, steps: x)


def test_an_installed_package_is_found(site: Path) -> None:
    install(
        site,
        "noise-plugin",
        {"noise_plugin/__init__.py": "", "noise_plugin/attacks.py": PLUGIN.format(name="noise")},
        "[rdc_bench.attacks]\nnoise = noise_plugin.attacks:noise\n",
    )
    registry = ATTACKS
    registry._entry_points_read = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "noise" in registry.names()
    assert registry.entry("noise").origin == "noise_plugin"
    assert isinstance(registry.get("noise"), Attack)
    assert registry.get("noise").defaults == {"scale": 1.0}


def test_a_broken_package_warns_and_hides_nothing(site: Path) -> None:
    install(
        site,
        "broken-plugin",
        {"broken_plugin.py": "import module_that_is_not_there", "bare_plugin.py": "def bare(): ..."},
        "[rdc_bench.attacks]\nbroken = broken_plugin:x\nbare = bare_plugin:bare\n",
    )
    ATTACKS._entry_points_read = False
    with pytest.warns(UserWarning, match="plugin") as caught:
        names = ATTACKS.names()
    messages = sorted(str(w.message) for w in caught)
    assert len(messages) == 2
    assert "plugin 'bare' of bare_plugin cannot be loaded: bare_plugin:bare is no Attack" in messages[0]
    assert "plugin 'broken' of broken_plugin cannot be loaded: No module named 'module_that_is_not_there'" in messages[1]
    assert {"pgd", "autoattack"} <= set(names)
    assert not {"broken", "bare"} & set(names)


def test_a_package_that_takes_a_builtins_name_warns(site: Path) -> None:
    install(
        site,
        "greedy-plugin",
        {"greedy_plugin.py": PLUGIN.format(name="pgd")},
        "[rdc_bench.attacks]\npgd = greedy_plugin:noise\n",
    )
    ATTACKS._entry_points_read = False
    with pytest.warns(UserWarning, match="'pgd' is claimed by rdc_bench and by greedy_plugin"):
        ATTACKS.names()
    assert ATTACKS.entry("pgd").origin == "rdc_bench"


def test_a_plugin_file_registers_and_may_be_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.format(name="mine"))
    load_plugin(path)
    load_plugin(path)
    assert ATTACKS.entry("mine").origin == str(path)
    other = tmp_path / "other.py"
    other.write_text(PLUGIN.format(name="mine"))
    with pytest.raises(UserError, match=r"'mine' is claimed by .*mine\.py and by .*other\.py"):
        load_plugin(other)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.py", None, "no such file"),
        ("text.txt", "x", "not a Python file"),
        ("wrong.py", "1 / 0", "ZeroDivisionError: division by zero"),
        ("syntax.py", "def", "SyntaxError"),
        ("quits.py", "raise SystemExit(0)", "SystemExit"),
    ],
)
def test_a_plugin_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_plugin(path)
    assert name in str(caught.value)


def test_another_process_can_load_a_plugin_without_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sent.py"
    path.write_text(PLUGIN.format(name="sent"))
    load_plugin(path)
    (sent,) = (plugin for plugin in plugin_sources() if plugin.file == str(path))
    here = ATTACKS.get("sent")
    path.unlink()
    del ATTACKS._entries["sent"]
    monkeypatch.delitem(sys.modules, sent.module)
    load_plugin_source(sent)
    assert ATTACKS.entry("sent").origin == str(path)
    there = ATTACKS.get("sent")
    assert there is not here
    assert sys.modules[there.function.__module__].noise is there  # so that it can be sent by its name
    load_plugin_source(sent)
    assert ATTACKS.get("sent") is there
    broken = sent._replace(module=f"{sent.module}0", source=b"1 / 0")
    with pytest.raises(UserError, match=r"sent\.py: ZeroDivisionError"):
        load_plugin_source(broken)
    assert broken.module not in sys.modules


def test_the_example_plugin_works() -> None:
    load_plugin(ROOT / "examples" / "plugin_attack.py")
    check_example(ATTACKS.get("random-corners"))


def check_example(found: Attack) -> None:
    weight = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))

    def model(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ weight

    x = torch.full((1, 1, 4, 4), 0.5)
    y = model(x).argmax(dim=1)
    threat = LpThreat("linf", 0.4)
    adversarial = found.function(model, x, y, threat, generator=torch.Generator().manual_seed(0))
    assert threat.contains(x, adversarial).all()
    assert (model(adversarial).argmax(dim=1) != y).all()


@pytest.mark.slow
def test_the_example_package_installs_and_works(tmp_path: Path) -> None:
    package = ROOT / "examples" / "rdc-bench-momentum"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(tmp_path)]
    subprocess.run([sys.executable, *install, str(package)], check=True)
    code = """
import torch, rdc_bench
from rdc_bench.attacks import ATTACKS
from rdc_bench.threats import LpThreat
assert "mi-fgsm" in rdc_bench.list_attacks()
assert ATTACKS.entry("mi-fgsm").origin == "rdc_bench_momentum"
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
x, threat = torch.full((2, 1, 4, 4), 0.5), LpThreat("linf", 0.4)
y = model(x).argmax(dim=1)
adversarial = ATTACKS.get("mi-fgsm").function(model, x, y, threat, generators=[torch.Generator(), torch.Generator()])
assert threat.contains(x, adversarial).all()
assert (model(adversarial).argmax(dim=1) != y).all()
"""
    environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=True, env=environment)
