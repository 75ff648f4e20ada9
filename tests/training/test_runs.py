"""Whole trainings, tiny, through to the card that they write."""

import errno

import pytest
import torch
from PIL import Image

import rdc_bench
from rdc_bench.cards import ModelCard, read_card
from rdc_bench.diffusion import EDMPrecond
from rdc_bench.eps import parse_eps
from rdc_bench.errors import UserError
from rdc_bench.files import write_atomically
from rdc_bench.loading import load_denoiser, load_model
from rdc_bench.randomness import generator
from rdc_bench.threats import LpThreat
from rdc_bench.training import runs
from rdc_bench.training.diffusion import multihead_loss
from rdc_bench.training.loop import Schedule
from rdc_bench.training.runs import Job, train_baseline, train_diffusion, train_multihead

TINY = {"fine": 8, "coarse": 16, "head": 32, "blocks": [1, 2], "head_blocks": 1, "embedding": 16}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Jobs on the bundled test images standing in for a training set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "VALIDATION_IMAGES", 20)
    monkeypatch.setattr(runs, "load_dataset", lambda *args, **kwargs: rdc_bench.load_dataset("fashion-mnist", "test", 200))

    def make(name, **options):
        schedule = Schedule(**{"images": 64, "batch_size": 16, **options})
        return Job(name, "fashion-mnist", schedule, tmp_path / "models", tmp_path / "checkpoints")

    return make


def test_teacher_student_and_classifier(job, tmp_path):
    path = train_diffusion(job("teacher"), log_mean=0.0, log_std=1.0, label_dropout=0.1, network=TINY)
    card = read_card(path, ModelCard)
    assert card.training.images == 64
    assert len(card.training.data_sha256) == 64
    assert card.validation.keys() == {"clean accuracy, 16 levels"}
    teacher = load_denoiser("teacher")
    assert teacher.model.class_in_trunk

    train_multihead(job("student"), teacher="teacher", start=None, log_mean=0.0, log_std=1.0, heads=2, loss_weight=0.02)
    student = load_denoiser("student")
    assert not student.model.class_in_trunk
    z, sigma = torch.randn(2, 1, 28, 28), torch.tensor([0.5, 1.0])
    assert student.all_classes(z, sigma).shape == (2, 10, 1, 28, 28)


@pytest.mark.parametrize("folder", ["models", "checkpoints"])
def test_a_folder_that_cannot_be_written_is_refused_before_training(job, tmp_path, folder):
    (tmp_path / folder).touch()
    with pytest.raises(NotADirectoryError) as refused:
        job("new")
    assert refused.value.filename == str(tmp_path / folder)


def test_a_full_disk_keeps_the_checkpoint_and_the_same_training_goes_on(job, tmp_path, monkeypatch):
    def train():
        options = {"threat": LpThreat("linf", 0.1), "eps": parse_eps("0.1"), "inner_steps": 1, "beta": 6.0}
        options["network"] = {"widths": [8, 8], "blocks": [1, 1]}
        return train_baseline(job("net"), method="standard", **options)

    def full(path, content):
        if path.suffix == ".safetensors":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_atomically", full)
        with pytest.raises(OSError, match="No space"):
            train()
    before = (tmp_path / "checkpoints" / "net.pt").stat().st_mtime_ns
    assert train().is_file()
    assert (tmp_path / "checkpoints" / "net.pt").stat().st_mtime_ns == before


def test_a_name_that_no_card_can_have_is_refused_before_training(job):
    with pytest.raises(UserError, match="'My Teacher' cannot be a card's name"):
        job("My Teacher")


def test_a_student_trained_without_a_teacher_is_called_a_multi_head_denoiser(job):
    train_diffusion(job("teacher"), log_mean=0.0, log_std=1.0, label_dropout=0.1, network=TINY)
    train_multihead(job("student"), teacher="teacher", start=None, log_mean=0.0, log_std=1.0, heads=2, loss_weight=0.02)
    direct = job("direct", images=16)
    path = train_diffusion(direct, start="student", log_mean=0.0, log_std=1.0, label_dropout=0.1, bayes_weight=0.1, network={})
    assert read_card(path, ModelCard).title == "Multi-head denoiser"


def test_a_shift_against_a_rule_that_is_not_trained_is_refused(job):
    with pytest.raises(UserError, match="bayes-weight above 0"):
        train_diffusion(job("teacher"), log_mean=0.0, log_std=1.0, label_dropout=0.1, bayes_eps=0.1, network=TINY)


def test_distillation_brings_the_student_nearer_to_the_teacher():
    torch.manual_seed(0)
    teacher = EDMPrecond(8, 1, 3, model_type="MultiHeadUNet", **TINY)
    with torch.no_grad():
        for p in teacher.parameters():  # an untrained teacher says the same for every class
            p.add_(0.1 * torch.randn_like(p))
    student = EDMPrecond(8, 1, 3, model_type="MultiHeadUNet", **TINY, class_in_trunk=False)
    loss = multihead_loss(teacher, 0.0, 0.5, heads=2, loss_weight=0.02)
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    values = []
    for step in range(150):
        value = loss(student, torch.rand(16, 1, 8, 8), torch.randint(0, 3, (16,)), generator("step", step))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-10:]) < 0.6 * sum(values[:10])


@pytest.mark.parametrize("method", ["standard", "pgd", "trades"])
def test_baselines(job, method):
    train_baseline(
        job("base"),
        method=method,
        threat=LpThreat("linf", 8 / 255),
        eps=parse_eps("8/255"),
        inner_steps=2,
        beta=6.0,
        network={"widths": [8, 8], "blocks": [1, 1]},
    )
    model = load_model("base")
    assert model.card.role == "baseline"
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_training_again_from_the_final_checkpoint_writes_the_same_weights(job, tmp_path):
    def train():
        train_diffusion(job("teacher"), log_mean=0.0, log_std=1.0, label_dropout=0.1, network=TINY)
        return (tmp_path / "models" / "teacher.safetensors").read_bytes()

    assert train() == train()


def test_a_teacher_goes_on_from_an_earlier_one(job):
    options = {"log_mean": 0.0, "log_std": 1.0, "label_dropout": 0.1}
    train_diffusion(job("teacher"), network=TINY, **options)
    train_diffusion(job("further", learning_rate=1e-12), start="teacher", network={}, **options)
    before, after = load_denoiser("teacher").state_dict(), load_denoiser("further").state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, atol=1e-6, rtol=0)


def test_a_teacher_must_be_a_denoiser(job):
    with pytest.raises(UserError, match="unknown model"):
        train_multihead(job("student"), teacher="nobody", start=None, log_mean=0.0, log_std=1.0, heads=2, loss_weight=0.02)


@pytest.mark.filterwarnings("ignore::rdc_bench.errors.Notice")
def test_validation_images_have_the_channels_of_the_training_images(tmp_path):
    """A folder whose training images are colour and grey, and whose validation images are grey alone."""
    for split, modes in {"train": ("RGB", "L"), "validation": ("L", "L")}.items():
        for name, level in (("bright", 200), ("dark", 50)):
            (tmp_path / split / name).mkdir(parents=True)
            for i, mode in enumerate(modes):
                Image.new("L", (9, 8), level + i).convert(mode).save(tmp_path / split / name / f"{i}.png")
    schedule = Schedule(images=16, batch_size=4)
    job = Job("mine", "image-folder", schedule, tmp_path / "models", tmp_path / "checkpoints", data_dir=tmp_path)
    path = train_baseline(
        job,
        method="standard",
        threat=LpThreat("linf", 8 / 255),
        eps=parse_eps("8/255"),
        inner_steps=1,
        beta=6.0,
        network={"widths": [4, 8], "blocks": [1, 1]},
    )
    card = read_card(path, ModelCard)
    assert card.image_shape == (3, 8, 9)
    assert card.training.data.endswith("train (2 of 4 images: grey repeated in 3 channels)")
