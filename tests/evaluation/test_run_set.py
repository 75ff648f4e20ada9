"""A set of threats: the same runs as one by one, what is left out and why, and what is refused."""

import dataclasses
import json

import pytest

import rdc_bench
from rdc_bench import UserError
from rdc_bench.evaluation import planning as plan_module
from rdc_bench.evaluation import run as run_module
from rdc_bench.results.store import RunFolder
from rdc_bench.threats import SETS, THREATS, is_seen, list_threats, make_threat, members

KINDS = ("linf", "l2", "stadv")


@pytest.fixture
def three_threats(monkeypatch, registered, toys):
    """Two threats that models are trained against and one that they are not, and a quick attack under all of them."""
    monkeypatch.setattr(plan_module, "members", lambda name: [t for t in KINDS if SETS[name].seen or not is_seen(t)])
    registered.attack("nudge", _nudge, threats=KINDS)


def _nudge(model, x, y, threat, *, generator, strength: float = 0.01):
    return threat.project(x, (x + strength).clamp(0, 1))


def run_set(tmp_path, threat="all", **options):
    asked = {"models": ["toy", "noisy"], "attacks": ["nudge"], "n": 6, "repeats": 2, "out": tmp_path / "results"}
    return rdc_bench.run(threat=threat, **{**asked, **options})


def test_the_sets_follow_from_the_cards():
    assert set(members("all")) == set(list_threats())
    assert {t for t in list_threats() if t not in members("unseen")} == {"linf", "l2", "l1"}
    assert set(members("all")[:3]) == {"linf", "l2", "l1"}


def test_a_card_of_the_users_joins_the_unseen_unless_it_says_otherwise(tmp_path, monkeypatch):
    folder = tmp_path / "threat_models"
    folder.mkdir()
    card = 'schema_version: 1\nname: {}\ntitle: t\nkind: linf\ndefault_eps: "4/255"\nunit: u\npaper: p\n'
    (folder / "mine.yaml").write_text(card.format("mine"))
    (folder / "known.yaml").write_text(card.format("known") + "seen: true\n")
    monkeypatch.chdir(tmp_path)
    assert "mine" in members("unseen")
    assert "known" not in members("unseen")
    assert "known" in members("all")


def test_the_runs_are_those_of_the_threats_named_alone(tmp_path, three_threats):
    found = run_set(tmp_path)
    assert [run.manifest.threat for run in found.runs] == list(KINDS)
    for run in found.runs:
        alone = run_set(tmp_path / "alone", threat=run.manifest.threat)
        assert alone.path.name == run.path.name
        assert alone.manifest.identity == run.manifest.identity
        mine, other = RunFolder(run.path).records(), RunFolder(alone.path).records()
        assert mine.drop(columns="seconds").equals(other.drop(columns="seconds"))
    stamps = [(run.path / "run.json").stat().st_mtime_ns for run in found.runs]
    again = run_set(tmp_path)
    assert [(run.path / "run.json").stat().st_mtime_ns for run in again.runs] == stamps


def test_document_and_summary(tmp_path, three_threats):
    found = run_set(tmp_path)
    document = json.loads(json.dumps(found.as_json()))
    assert document["threat"] == "all"
    assert document["skipped"] == []
    assert document["runs"] == [run.as_json() for run in found.runs]
    assert {row["model"] for row in document["summary"]} == {"toy", "noisy"}
    frame = found.summary().set_index("model")
    for row in document["summary"]:
        for sense in ("avg", "worst"):
            rates = {
                run.manifest.threat: run.summary().set_index("model")[f"robust_{sense}"][row["model"]] for run in found.runs
            }
            assert row["mean"][sense] == pytest.approx(sum(rates.values()) / 3)
            assert row["lowest"][sense]["value"] == pytest.approx(min(rates.values()))
            assert rates[row["lowest"][sense]["threat"]] == pytest.approx(min(rates.values()))
            assert row["union"][sense]["value"] <= min(rates.values()) + 1e-9
            assert frame[f"union_{sense}"][row["model"]] == row["union"][sense]["value"]
            assert frame[f"stadv_{sense}"][row["model"]] == pytest.approx(rates["stadv"])


def test_progress_is_one_count_over_all_threats(tmp_path, three_threats):
    steps = []
    run_set(tmp_path, progress=steps.append)
    assert {step.total for step in steps} == {3 * 2 * 6 * 2}
    assert [step.done for step in steps] == sorted({step.done for step in steps})
    assert steps[-1].done == steps[-1].total
    assert list(dict.fromkeys(step.threat for step in steps)) == list(KINDS)


def test_an_interrupted_set_goes_on_where_it_stopped(tmp_path, three_threats, monkeypatch):
    def interrupted(step):
        if step.threat == "l2" and step.model == "noisy":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_set(tmp_path, progress=interrupted)
    worked = []
    clean = run_module.Executor.clean

    def counted(self, start, stop):
        worked.append((self.plan.config.threat, self.name))
        return clean(self, start, stop)

    monkeypatch.setattr(run_module.Executor, "clean", counted)
    whole = run_set(tmp_path)
    assert whole.complete
    assert set(worked) == {("stadv", "toy"), ("stadv", "noisy")}


def test_threats_that_cannot_be_evaluated_are_listed_with_the_reason_and_refused_when_named_alone(
    tmp_path, three_threats, monkeypatch, registered
):
    def too_small(eps):
        threat = make_threat("linf", "8/255", (1, 28, 28))[0]

        def refuse(shape):
            raise UserError("threat stadv needs larger images")

        monkeypatch.setattr(threat, "max_eps", refuse)
        return threat

    monkeypatch.setitem(THREATS._entries, "stadv", dataclasses.replace(THREATS.entry("stadv"), target=too_small))
    found = run_set(tmp_path)
    assert [run.manifest.threat for run in found.runs] == ["linf", "l2"]
    assert found.as_json()["skipped"] == [{"threat": "stadv", "reason": "threat stadv needs larger images"}]
    with pytest.raises(UserError, match="larger images"):
        run_set(tmp_path, threat="stadv")
    with pytest.raises(UserError, match=r"no threat of .unseen. can be evaluated here; stadv: .* larger images"):
        run_set(tmp_path, threat="unseen")


def test_attacks_go_to_the_threats_that_they_work_under(tmp_path, three_threats):
    found = run_set(tmp_path, attacks=["fgsm", "nudge"], attack_options={"strength": 0.0})
    assert [[a.name for a in run.manifest.attacks] for run in found.runs] == [["fgsm", "nudge"], ["fgsm", "nudge"], ["nudge"]]
    assert all(run.manifest.attacks[-1].options["strength"] == 0.0 for run in found.runs)
    found = run_set(tmp_path, attacks=["fgsm"])
    assert [skipped.threat for skipped in found.skipped] == ["stadv"]
    assert "'fgsm' works under" in found.skipped[0].reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": "8/255"}, "each threat of the set has its own size"),
        ({"attacks": ["nugde"]}, "Did you mean 'nudge'"),
        ({"attack_options": {"strenght": 1.0}}, "Did you mean 'strength'"),
        ({"models": ["tyo"]}, "toy"),
        ({"n": 0}, "at least one image"),
        ({"threat": "unsen"}, "Did you mean 'unseen'"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(tmp_path, three_threats, options, message):
    with pytest.raises(UserError, match=message):
        run_set(tmp_path, **options)
    assert not (tmp_path / "results").exists()


def test_a_plugins_threat_runs_under_every_attack_registered_for_it(tmp_path, toys, registered):
    registered.attack("nudge", _nudge, threats=("plugged",))

    def plugged(eps):
        threat = make_threat("linf", eps, (1, 28, 28))[0]
        threat.kind = "plugged"
        return threat

    THREATS.register("plugged", plugged, "test")
    try:
        assert "plugged" in members("unseen")
        (attack,) = run_set(tmp_path, threat="plugged", eps="0.1", attacks=[]).manifest.attacks
        assert attack.name == "nudge"
    finally:
        del THREATS._entries["plugged"]
