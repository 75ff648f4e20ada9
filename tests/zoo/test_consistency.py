import pytest
import yaml

import rdc_bench
from rdc_bench import UserError
from rdc_bench.core.card_files import packaged
from rdc_bench.evaluation.plan import RunConfig
from rdc_bench.evaluation.planning import make_plan
from rdc_bench.zoo import catalog


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a changed copy of a packaged card into the working directory, under a name of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()

    def write(name, like, model=None, **changes):
        card = yaml.safe_load((packaged("models") / f"{like}.yaml").read_text())
        card |= {"name": name, **changes}
        card["model"] |= model or {}
        (tmp_path / "models" / f"{name}.yaml").write_text(yaml.safe_dump(card))

    return write


@pytest.mark.parametrize(
    ("like", "model", "changes", "message"),
    [
        ("dc-fashion-mnist", {}, {"num_classes": 9}, "num_classes is 9, but its denoiser 'multihead-fashion-mnist' knows 10"),
        ("dc-fashion-mnist", {"class_labels": [1, 2]}, {}, "2 class_labels for 10 classes"),
        ("dc-fashion-mnist", {"class_labels": [1, 10]}, {"num_classes": 2}, "class_labels are not all from 0 to 9"),
        ("dc-fashion-mnist", {"denoiser": "standard-fashion-mnist"}, {}, "'standard-fashion-mnist' is no denoiser"),
        (
            "dc-fashion-mnist",
            {"denoiser": "edm-cifar10-cond-vp"},
            {},
            "image_shape is 1×28×28, but that of its part .* 3×32×32",
        ),
        ("dc-edm-cifar10", {"denoiser": "edm-cifar10-uncond-vp"}, {}, "num_classes is 10, but its denoiser .* knows 0"),
        ("rdc-fashion-mnist", {}, {"num_classes": 100}, "num_classes is 100, but its classifier 'dc-fashion-mnist' tells 10"),
        ("standard-fashion-mnist", {}, {"num_classes": 100}, "the card says 100, but model.config.num_classes means 10"),
    ],
)
def test_a_card_that_contradicts_its_parts_is_one_line(write, like, model, changes, message):
    write("mine", like, model, **changes)
    for use in (lambda: rdc_bench.load_model("mine"), lambda: make_plan(RunConfig(models=("mine",), n=1))):
        with pytest.raises(UserError, match=rf"mine\.yaml: .*{message}") as caught:
            use()
        assert "\n" not in str(caught.value)
    (row,) = [row for row in catalog.models() if row["name"] == "mine"]
    assert not row["runnable"]
    assert row["why"]


def test_a_denoiser_of_another_size_than_its_card_says(write):
    write("edm", "edm-cifar10-cond-vp", image_shape=[3, 64, 64])
    write("mine", "dc-edm-cifar10", {"denoiser": "edm"}, image_shape=[3, 64, 64])
    with pytest.raises(
        UserError, match=r"edm\.yaml: the card says \(64, 64\), but model\.config\.img_resolution means \(32, 32\)"
    ):
        rdc_bench.load_model("mine")


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [("cifar100", "cifar100 has 3×32×32 images of 100"), ("fashion-mnist", "fashion-mnist has 1×28×28 images of 10")],
)
def test_another_dataset_is_refused_before_it_is_looked_for(write, tmp_path, dataset, expected):
    """CIFAR-100 is not on this machine: that the model does not fit it must be found out first."""
    write("mine", "standard-cifar10", dataset=dataset)
    with pytest.raises(UserError, match=rf"model 'mine' takes 3×32×32 images of 10 classes; {expected}"):
        make_plan(RunConfig(models=("mine",), n=1, data_dir=tmp_path / "nowhere"))


def test_a_registered_model_is_held_to_its_dataset_too(registered):
    rdc_bench.model("odd", dataset="fashion-mnist", image_shape=(1, 28, 28), num_classes=7)(registered.toy)
    with pytest.raises(
        UserError, match="model 'odd' takes 1×28×28 images of 7 classes; fashion-mnist has 1×28×28 images of 10"
    ):
        make_plan(RunConfig(models=("odd",), n=1))
