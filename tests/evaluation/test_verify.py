import json

import pytest
import safetensors.torch

import rdc_bench
from rdc_bench import UserError
from rdc_bench.results.store import RunFolder


@pytest.fixture
def done(tmp_path, toys):
    return rdc_bench.run(models=toys, eps="8/255", attacks=["pgd", "fgsm"], n=10, repeats=3, out=tmp_path)


def test_an_honest_run_is_verified(done):
    found = rdc_bench.verify(done.path)
    assert found.ok
    assert [row["checked"] for row in found.models] == [10, 10]


def test_all_kept_images_are_verified(tmp_path, toys):
    done = rdc_bench.run(models=toys, attacks=["pgd", "fgsm"], n=6, repeats=3, out=tmp_path, keep="all")
    found = rdc_bench.verify(done.path)
    assert found.ok
    assert [row["checked"] for row in found.models] == [12, 12]


def test_an_attack_whose_images_were_all_beaten_by_another_is_no_obstacle(tmp_path, registered, toys):
    def idle(model, x, y, threat, *, generator):
        return x

    registered.attack("idle", idle)
    done = rdc_bench.run(models=["noisy"], attacks=["pgd", "idle"], n=1, repeats=3, out=tmp_path)
    found = rdc_bench.verify(done.path)
    assert found.ok
    assert found.models[0]["checked"] == 1
    assert (RunFolder(done.path).images()["noisy/attack"] == 0).all()  # the case in question


def tamper(done, change):
    """Change the stored images and adjust the manifest's hash, as a forger would."""
    import hashlib

    path = done.path / "adversarial.safetensors"
    images = safetensors.torch.load_file(path)
    change(images)
    path.write_bytes(safetensors.torch.save(images))
    manifest = json.loads((done.path / "run.json").read_text())
    manifest["files"]["adversarial.safetensors"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (done.path / "run.json").write_text(json.dumps(manifest))


def test_an_image_outside_the_threat_set_is_found(done):
    tamper(done, lambda images: images["toy"][0].fill_(1.0))
    found = rdc_bench.verify(done.path)
    assert not found.ok
    assert found.models[0]["outside"] == 1


def test_predictions_that_differ_are_found(done):
    clean = rdc_bench.load_dataset("fashion-mnist", "test", 10).images

    def undo(images):
        images["toy"].copy_(clean)

    tamper(done, undo)
    found = rdc_bench.verify(done.path)
    assert found.models[0]["outside"] == 0
    assert found.models[0]["differing"] > 0


def test_damaged_files_are_refused(done):
    path = done.path / "records.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="SHA-256 differs"):
        rdc_bench.verify(done.path)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such run"):
        rdc_bench.verify(tmp_path / "nothing")
