"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"): 32×32 RGB photographs.

Each is read from torchvision's cache layout (a folder of pickled batches), from the Hugging Face Hub's parquet layout
(``FOLDER/test-00000-of-00001.parquet``; columns ``img: {bytes, path}`` and the label), from a single parquet file, or
downloaded. The two differ in names alone.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from rdc_bench.core.errors import UserError
from rdc_bench.core.files import write_atomically
from rdc_bench.data.dataset import Dataset, DatasetInfo, rows_of_split
from rdc_bench.data.files import cache_dir, download
from rdc_bench.data.images import Shape, decode_exact
from rdc_bench.data.plain_pickle import load_plain

SHAPE: Shape = (3, 32, 32)


@dataclass(frozen=True)
class Cifar:
    """One of the two, by the names that its files and their fields have.

    Attributes:
        folder: of torchvision's layout; train, test: its batch files; batch_label: the key of their labels; meta: the file
            beside them that is kept for torchvision's sake.
        hub_folder: of the Hub's layout; column: of its labels.
        url, md5: the official archive, and the only checksum that its authors publish.
    """

    name: str
    summary: str
    classes: tuple[str, ...]
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    batch_label: str
    meta: str
    hub_folder: str
    column: str
    url: str
    md5: str

    @property
    def info(self) -> DatasetInfo:
        """What :data:`rdc_bench.data.DATASETS` lists."""
        return DatasetInfo(self.name, self.summary, self.classes, SHAPE, self.load)

    def load(self, split: str, *, n: int | None = None, data_dir: Path | None = None, allow_download: bool = False) -> Dataset:
        """The images in the order of their files; ``validation`` is the end of the training set, which ``train`` leaves out.

        ``data_dir`` may also be one parquet file, which then is the whole training set or the whole test set.
        """
        part = "test" if split == "test" else "train"
        files = self._find(part, data_dir, allow_download)
        read = self._read_parquet if files[0].suffix == ".parquet" else self._read_batches
        pixels, labels = read(files, split, n)
        source = files[0] if len(files) == 1 else files[0].parent
        return Dataset(self.name, split, pixels, labels, self.classes, str(source))

    def _find(self, part: str, data_dir: Path | None, allow_download: bool) -> list[Path]:
        """The files that together hold the training or the test images; a given ``data_dir`` is the only place looked at."""
        if data_dir is not None and data_dir.is_file():
            return [_checked_file(data_dir, part)]
        place = data_dir or cache_dir()
        names = self.test if part == "test" else self.train
        folders = [place / self.folder, place]
        # Both datasets share the cache, where the Hub's files must therefore lie in the folder with the dataset's own name.
        hub_folders = [place / self.hub_folder, *([place] if data_dir else [])]
        for folder in folders:
            if all((folder / name).is_file() for name in names):
                return [folder / name for name in names]
        for folder in hub_folders:
            if parquet := _parquet_files(folder, part):
                return parquet
        if allow_download and data_dir is None:
            self._download()
            return [cache_dir() / self.folder / name for name in names]
        raise UserError(
            f"{self.name}: {place} holds neither {self.folder}/{names[0]} nor {self.hub_folder}/{part}*.parquet; "
            "pass --data-dir with a folder in torchvision's or the Hub's layout, or pass --download without --data-dir"
        )

    def _read_batches(self, files: list[Path], split: str, n: int | None) -> tuple[Tensor, Tensor]:
        batches = [self._read_batch(path) for path in files]
        pixels = np.concatenate([pixels for pixels, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        rows = rows_of_split(split, len(labels), n)
        return torch.from_numpy(pixels[rows]), torch.from_numpy(labels[rows])

    def _read_batch(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error})") from error
        batch = {
            key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in load_plain(raw, str(path)).items()
        }
        pixels, labels = batch.get("data"), batch.get(self.batch_label)
        if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32:
            raise UserError(f"{path}: not a {self.name} batch: 'data' is not a uint8 array of shape (N, 3072)")
        if not isinstance(labels, list) or len(labels) != len(pixels):
            raise UserError(f"{path}: not a {self.name} batch: {self.batch_label!r} is not a list of {len(pixels)} numbers")
        return pixels.reshape(-1, *SHAPE), self._checked_labels(labels, str(path))

    def _read_parquet(self, files: list[Path], split: str, n: int | None) -> tuple[Tensor, Tensor]:
        """Decodes only the images that are asked for."""
        name = ", ".join(str(path) for path in files)
        columns = ["img", self.column]
        try:
            table = pa.concat_tables([pq.ParquetFile(path).read(columns=columns) for path in files])
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{name}: cannot be read as parquet ({error})") from error
        if table.column_names != columns or not pa.types.is_struct(table.schema.field("img").type):
            raise UserError(f"{name}: has no columns 'img' ({{bytes, path}}) and {self.column!r}")
        labels = self._checked_labels(table[self.column].to_pylist(), name)
        rows = rows_of_split(split, len(labels), n)
        encoded = table["img"].slice(rows.start, rows.stop - rows.start).to_pylist()
        pixels = np.empty((len(encoded), *SHAPE), np.uint8)
        for i, image in enumerate(encoded):
            raw = image.get("bytes") if image else None
            if not isinstance(raw, bytes):
                raise UserError(f"{name}: row {rows.start + i} holds no image bytes")
            pixels[i] = decode_exact(raw, f"{name}: row {rows.start + i}", SHAPE)
        return torch.from_numpy(pixels), torch.from_numpy(labels[rows])

    def _checked_labels(self, labels: list[Any], name: str) -> np.ndarray:
        if not labels:
            raise UserError(f"{name}: holds no images")
        if not all(type(label) is int and 0 <= label < len(self.classes) for label in labels):
            raise UserError(f"{name}: labels are not whole numbers from 0 to {len(self.classes) - 1}")
        return np.array(labels, np.int64)

    def _download(self) -> None:
        """Fetch the official archive into the cache and write its batches beside it.

        The members are read, not extracted: no path, link or permission in the archive has any effect.
        """
        archive = cache_dir() / self.url.rsplit("/", 1)[1]
        download(self.url, archive)
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if digest != self.md5:
            archive.unlink()
            raise UserError(
                f"{self.url}: what was downloaded is not the official {self.name} archive (MD5 {digest}); it was removed"
            )
        with tarfile.open(archive) as tar:
            for name in [*self.train, *self.test, self.meta]:
                member = tar.extractfile(f"{self.folder}/{name}")
                if member is None:
                    raise UserError(f"{archive}: {self.folder}/{name} is not a file")
                write_atomically(cache_dir() / self.folder / name, member.read())


def _checked_file(path: Path, part: str) -> Path:
    if path.suffix != ".parquet":
        raise UserError(f"{path}: --data-dir takes a folder or a .parquet file")
    other = "train" if part == "test" else "test"
    if path.name.startswith(other):
        raise UserError(f"{path}: by its name this is the {other} set, but images of the {part} set were asked for")
    return path


def _parquet_files(folder: Path, part: str) -> list[Path]:
    """All shards of a part, or its one file without a shard number; empty when there is neither."""
    candidates = sorted(folder.glob(f"{part}*.parquet"))
    shards = {path: match for path in candidates if (match := re.fullmatch(rf"{part}-(\d+)-of-(\d+)\.parquet", path.name))}
    if shards:
        count = max(int(match[2]) for match in shards.values())
        if [(int(match[1]), int(match[2])) for match in shards.values()] != [(i, count) for i in range(count)]:
            names = ", ".join(path.name for path in shards)
            raise UserError(f"{folder}: not one complete set of {part} shards: {names}")
        return list(shards)
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        raise UserError(f"{folder}: several files may be the {part} set ({names}); pass the file itself as --data-dir")
    return candidates


CIFAR10 = Cifar(
    name="cifar10",
    summary="32×32 RGB photographs of animals and vehicles (Krizhevsky 2009)",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test=("test_batch",),
    batch_label="labels",
    meta="batches.meta",
    hub_folder="plain_text",
    column="label",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
)

#: The "fine" classes of CIFAR-100, which are numbered in alphabetical order.
_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""

CIFAR100 = Cifar(
    name="cifar100",
    summary="32×32 RGB photographs of 100 kinds of animals, plants and things (Krizhevsky 2009)",
    classes=tuple(_FINE.split()),
    folder="cifar-100-python",
    train=("train",),
    test=("test",),
    batch_label="fine_labels",
    meta="meta",
    hub_folder="cifar100",
    column="fine_label",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
)
