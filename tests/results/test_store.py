import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from rdc_bench.errors import UserError
from rdc_bench.results.schema import RECORDS
from rdc_bench.results.store import RunFolder, Shard, find_runs

ROW = {
    "model": "m",
    "attack": "clean",
    "index": 0,
    "repeat": 0,
    "label": 1,
    "clean_prediction": 1,
    "adversarial_prediction": None,
    "distance": None,
    "success": False,
    "status": "ok",
    "reason": None,
    "gradient": "none",
    "nfe": 1.0,
    "nfe_backward": 0.0,
    "seconds": 0.5,
    "gradients": None,
    "slope_error": None,
    "rose": None,
}


def test_shards_come_back_as_they_were(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_shard("00", Shard([ROW], {"adversarial": torch.ones(2)}))
    shard = folder.shard("00")
    assert shard.rows == [ROW]
    assert torch.equal(shard.images["adversarial"], torch.ones(2))
    assert folder.shard("01") is None


def test_records_from_before_a_column_was_added_have_no_value_there(tmp_path):
    older = pa.schema(list(RECORDS)[:15])
    path = tmp_path / "shards" / "00.parquet"
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist([{name: ROW[name] for name in older.names}], schema=older), path)
    (tmp_path / "shards" / "00.safetensors").write_bytes(safetensors.torch.save({}))
    assert RunFolder(tmp_path).shard("00").rows == [ROW]


@pytest.mark.parametrize("ending", ["parquet", "safetensors"])
def test_a_damaged_shard_counts_as_not_done(tmp_path, ending):
    folder = RunFolder(tmp_path)
    folder.write_shard("00", Shard([ROW], {}))
    path = tmp_path / "shards" / f"00.{ending}"
    path.write_bytes(path.read_bytes()[:5])
    assert folder.shard("00") is None


def test_folders_that_are_not_ours_are_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_runs(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no run"):
        find_runs(tmp_path)
    (tmp_path / "run.json").write_text('{"format": "something else"}')
    with pytest.raises(UserError, match="not a manifest"):
        RunFolder(tmp_path).manifest()
    (tmp_path / "run.json").write_text("garbage")
    with pytest.raises(UserError, match="not a manifest"):
        RunFolder(tmp_path).manifest()


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 1, 4, 5)], ids=str)
def test_what_is_stored_does_not_depend_on_the_layout_in_memory(tmp_path, shape):
    images = torch.rand(shape)
    written = []
    for given in (images, images.contiguous(memory_format=torch.channels_last), images.repeat(1, 1, 1, 2)[..., : shape[3]]):
        folder = RunFolder(tmp_path / str(len(written)))
        folder.write_shard("00", Shard([ROW], {"adversarial": given}))
        assert torch.equal(folder.shard("00").images["adversarial"], images)
        written.append((folder.path / "shards" / "00.safetensors").read_bytes())
    assert len(set(written)) == 1
