"""Runs on folders of images that nobody prepared for this package: grey, colour and both, of odd sizes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import rdc_bench
from rdc_bench import UserError
from rdc_bench.cli import main
from rdc_bench.errors import Notice

CLASSES = ("bright", "dark", "middle")
LEVELS = {"bright": 150, "dark": 60, "middle": 105}
MIXED = "3 of 6 images: grey repeated in 3 channels"
LUMA = "all images: colour converted to grey by luminance (Rec. 601)"
REPEATED = "all images: grey repeated in 3 channels"


class Brightness(torch.nn.Module):
    """Tells the classes by how bright an image is; a pixel of noise between them keeps gradients alive."""

    def forward(self, x):
        means = torch.tensor([LEVELS[name] / 255 for name in CLASSES])
        texture = 0.01 * x.flatten(1).square().mean(dim=1, keepdim=True)
        return -100 * (x.flatten(1).mean(dim=1, keepdim=True) - means).square() + texture * means


@pytest.fixture
def model(registered):
    """``model(channels, height, width)`` is the name of a model for such images."""

    def make(*shape):
        name = "brightness-" + "-".join(map(str, shape))
        rdc_bench.model(name, dataset="image-folder", image_shape=shape, num_classes=3)(Brightness)
        return name

    return make


@pytest.fixture
def folder(tmp_path):
    """``folder(kind, height, width)``: two images per class, ``grey``, ``colour``, or one of each (``mixed``)."""

    def draw(kind, height, width):
        rng = np.random.default_rng(0)
        for name in CLASSES:
            place = tmp_path / kind / name
            place.mkdir(parents=True)
            for i in range(2):
                pixels = LEVELS[name] + rng.integers(-20, 21, (height, width, 3))
                grey = kind == "grey" or (kind == "mixed" and i == 0)
                Image.fromarray(pixels.astype(np.uint8)).convert("L" if grey else "RGB").save(place / f"{i}.png")
        return tmp_path / kind

    return draw


@pytest.mark.filterwarnings("ignore::rdc_bench.errors.Notice")
@pytest.mark.parametrize(
    ("kind", "channels", "changes"),
    [
        ("grey", 1, ()),
        ("grey", 3, (REPEATED,)),
        ("colour", 1, (LUMA,)),
        ("colour", 3, ()),
        ("mixed", 1, (MIXED, LUMA)),
        ("mixed", 3, (MIXED,)),
    ],
)
@pytest.mark.parametrize("size", [(32, 32), (20, 13)])
@pytest.mark.parametrize("keep", ["worst", "all"])
def test_a_run_is_made_recorded_and_verified(tmp_path, model, folder, kind, channels, changes, size, keep):
    data = folder(kind, *size)
    done = rdc_bench.run(
        models=[model(channels, *size)],
        eps="32/255",
        attacks=["pgd", "apgd-ce", "square"],
        attack_options={"steps": 3, "queries": 20},
        n=6,
        out=tmp_path / "out",
        data_dir=data,
        keep=keep,
    )
    assert done.complete
    (found,) = done.models
    assert found.clean.value == 1
    assert found.worst.value < 1
    assert done.manifest.data_source == str(data) + (f" ({'; '.join(changes)})" if changes else "")
    checked = rdc_bench.verify(done.path, data_dir=data)
    assert checked.ok
    assert checked.models[0]["checked"] == (6 if keep == "worst" else 18)


@pytest.mark.parametrize("shape", [(1, 13, 20), (3, 20, 13)])
def test_unseen_threats_work_or_say_why_not(tmp_path, model, folder, shape):
    data = folder("grey" if shape[0] == 1 else "colour", *shape[1:])
    options = {"steps": 2, "restarts": 1, "searches": 1}
    done = rdc_bench.run(
        models=[model(*shape)], threat="unseen", n=1, repeats=1, out=tmp_path / "out", data_dir=data, attack_options=options
    )
    assert done.complete
    assert len(done.runs) + len(done.skipped) >= 13
    assert [skipped.threat for skipped in done.skipped] in ([], ["corruptions"])  # whose library is an extra
    assert all(rdc_bench.verify(run.path, data_dir=data).ok for run in done.runs)


def test_conversions_are_said_once(tmp_path, model, folder):
    data = folder("mixed", 20, 13)
    with pytest.warns(Notice) as said:
        rdc_bench.run(models=[model(1, 20, 13)], attacks=["fgsm"], n=6, out=tmp_path / "out", data_dir=data)
    assert [str(notice.message) for notice in said] == [f"image-folder: {data} ({MIXED}; {LUMA})"]


def test_the_command_line_says_conversions_in_one_line_on_stderr(tmp_path, model, folder, monkeypatch, capsys):
    data = folder("mixed", 20, 13)
    where = ["--attack", "fgsm", "--n", "6", "--out", str(tmp_path / "out"), "--data-dir", str(data), "--json"]
    monkeypatch.setattr("sys.argv", ["rdc-bench", "run", "--model", model(3, 20, 13), *where])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "complete"
    assert f"note: image-folder: {data} ({MIXED})" in err.splitlines()
    assert "Notice" not in err


@pytest.mark.parametrize(
    ("shape", "n", "message"),
    [
        ((3, 32, 32), 6, r"takes 3×32×32 images of 3 classes; image-folder has 3×20×13 images of 3$"),
        ((3, 20, 13), 7, r"n = 7, but image-folder \(test, from .*colour\) holds 6 images"),
    ],
)
def test_images_that_do_not_fit_are_refused(tmp_path, model, folder, shape, n, message):
    with pytest.raises(UserError, match=message):
        rdc_bench.run(models=[model(*shape)], attacks=["fgsm"], n=n, out=tmp_path / "out", data_dir=folder("colour", 20, 13))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("removed", "left"), [(("dark",), "2 (bright, middle)"), (("dark", "middle"), "1 (bright)")])
def test_the_classes_of_a_folder_with_another_number_of_them_are_listed(tmp_path, model, folder, removed, left):
    data = folder("colour", 20, 13)
    for name in removed:
        (data / name).rename(tmp_path / name)
    with pytest.raises(UserError) as refused:
        rdc_bench.run(models=[model(3, 20, 13)], attacks=["fgsm"], n=2, out=tmp_path / "out", data_dir=data)
    assert str(refused.value).endswith(f"image-folder has 3×20×13 images of {left}")


def test_models_for_different_images_are_no_one_run(tmp_path, model, folder):
    names = [model(1, 20, 13), model(3, 20, 13)]
    with pytest.raises(UserError, match="'brightness-1-20-13' and 'brightness-3-20-13' take images of different shapes"):
        rdc_bench.run(models=names, attacks=["fgsm"], n=2, out=tmp_path / "out", data_dir=folder("colour", 20, 13))
