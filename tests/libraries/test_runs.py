"""Evaluations of libraries' networks: what is recorded, what identifies them, and how they are found again."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import rdc_bench
from rdc_bench.core.files import file_sha256
from rdc_bench.evaluation.plan import RunConfig
from rdc_bench.evaluation.planning import make_plan

OPTIONS = {"checkpoint": "my.safetensors", "mean": 0.25, "std": [0.5]}


def plan(models=("timm:lcnet_050",), **options):
    return make_plan(RunConfig(models=models, dataset="fashion-mnist", n=2, model_options={**OPTIONS, **options}))


def test_a_run_records_what_leads_to_the_model_and_is_verified(trained, here):
    trained()
    done = rdc_bench.run(["timm:lcnet_050"], model_options=OPTIONS, dataset="fashion-mnist", n=3, attacks=["fgsm"])
    (entry,) = json.loads((done.path / "run.json").read_text())["models"]
    assert entry["reference"] == "timm:lcnet_050?checkpoint=my.safetensors&dataset=fashion-mnist&mean=0.25&std=0.5"
    assert entry["weights"] == {"my.safetensors": file_sha256(here / "my.safetensors")}
    assert (entry["card"]["model"]["mean"], entry["card"]["model"]["kind"]) == ([0.25], "timm")
    assert rdc_bench.verify(done.path).ok
    trained(num_classes=10, file="other.safetensors")
    (here / "my.safetensors").write_bytes((here / "other.safetensors").read_bytes()[:-4] + b"\x00\x00\x00\x3f")
    assert "changed" in rdc_bench.verify(done.path).models[0]["note"]


def test_a_plan_is_identified_by_the_weights_and_every_argument_not_by_where_the_file_lies(trained, here):
    trained()
    (here / "sub").mkdir()
    shutil.copy("my.safetensors", "sub/my.safetensors")
    first = plan().identity
    assert plan(checkpoint=here / "sub" / "my.safetensors").identity == first
    assert plan(("timm:lcnet_050?mean=0.25&std=0.5",), mean=0.1).identity == first
    changed = [plan(mean=0.1), plan(std=1), plan(resize=56), plan(resize=56, interpolation="bilinear"), plan(name="mine")]
    assert len({first, *(other.identity for other in changed)}) == 6


def test_two_checkpoints_of_one_network_are_two_models(trained):
    trained()
    trained(file="other.pt")
    made = plan(("timm:lcnet_050", "timm:lcnet_050?checkpoint=other.pt", "at-linf-fashion-mnist"))
    assert [model.name for model in made.models] == ["timm-lcnet_050-my", "timm-lcnet_050-other", "at-linf-fashion-mnist"]
    with pytest.raises(rdc_bench.UserError, match="twice"):
        plan(("timm:lcnet_050", "timm:lcnet_050"))


def test_grey_images_of_a_folder_reach_a_network_for_colour(trained, here):
    trained("resnet10t", "ten.pt", in_chans=3, num_classes=2)
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (here / "images" / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(here / "images" / name / f"{i}.png")
    with pytest.warns(UserWarning, match="grey repeated"):
        done = rdc_bench.run(
            ["timm:resnet10t"],
            model_options={"checkpoint": "ten.pt", "image_size": 32, "num_classes": 2},
            dataset="image-folder",
            data_dir="images",
            n=4,
            attacks=["fgsm"],
        )
    assert done.summary()["clean"].notna().all()
