import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rdc_bench
from rdc_bench import UserError
from rdc_bench.zoo.library_name import is_library_name, parse_library_name, with_arguments


def test_a_name_says_everything_and_is_written_as_it_is_read():
    asked = parse_library_name("timm:resnet18.a1_in1k?checkpoint=a/b c.pt&num_classes=7&mean=0.5,0.25,1e-3&resize=64")
    assert (asked.library, asked.architecture) == ("timm", "resnet18.a1_in1k")
    assert asked.arguments.mean == (0.5, 0.25, 0.001)
    assert (asked.arguments.num_classes, asked.arguments.resize, asked.arguments.std) == (7, 64, None)
    assert parse_library_name(str(asked)) == asked


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_path_survives_in_a_name(path):
    name = with_arguments("timm:resnet18", {"checkpoint": path, "mean": [0.5, 0.25]})
    assert parse_library_name(name).arguments.checkpoint == path
    assert parse_library_name(str(parse_library_name(name))).arguments.checkpoint == path


def test_what_a_name_says_itself_comes_first():
    name = with_arguments("timm:resnet18?checkpoint=mine.pt", {"checkpoint": "other.pt", "resize": 64})
    assert (parse_library_name(name).arguments.checkpoint, parse_library_name(name).arguments.resize) == ("mine.pt", 64)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:", ["write timm:NAME"]),
        ("timm:hf-hub:owner/repo", ["write timm:NAME"]),
        ("timm:../resnet", ["write timm:NAME"]),
        ("torchvision:a b", ["write torchvision:NAME"]),
        ("timm:resnet18?", ["KEY=VALUE"]),
        ("timm:resnet18?checkpoint", ["KEY=VALUE"]),
        ("timm:resnet18?resize=64&resize=32", ["resize", "twice"]),
        ("timm:resnet18?checkpiont=a.pt", ["'checkpiont'", "'checkpoint'"]),
        ("timm:resnet18?num_classes=many", ["num_classes=many", "integer"]),
        ("timm:resnet18?num_classes=1", ["num_classes=1"]),
        ("timm:resnet18?mean=0.5,nan", ["mean=0.5,nan", "finite"]),
        ("timm:resnet18?interpolation=lanczos", ["lanczos", "bicubic"]),
        ("timm:resnet18?name=No Spaces", ["name=No Spaces"]),
    ],
)
def test_a_name_that_cannot_be_read_says_what_would_be_right(name, words):
    assert is_library_name(name)
    with pytest.raises(UserError) as caught:
        parse_library_name(name)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_without_the_extra_the_line_says_how_to_get_it(library, monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"rdc_bench.libraries.of_{library}", raising=False)
    with pytest.raises(UserError, match=r"pip install 'rdc-bench\[timm\]'") as caught:
        rdc_bench.load_model(f"{library}:resnet18?checkpoint=my.pt&dataset=fashion-mnist")
    assert "\n" not in str(caught.value)


def test_arguments_for_models_that_take_none_are_refused(tmp_path):
    with pytest.raises(UserError, match="checkpoint"):
        rdc_bench.run(["standard-fashion-mnist"], model_options={"checkpoint": "a.pt"}, out=tmp_path)
