"""``rdc-bench models``."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("models")
def command() -> None:
    """Bring weights here, and say what they are.

    \b
    Examples:
      rdc-bench models convert edm-cifar10-32x32-cond-vp.pkl models/edm-cifar10 --dataset cifar10
    """


@command.command("convert")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--architecture", help="Class of the network, where the file does not say, e.g. EDMPrecond or SmallResNet.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="YAML or JSON file with the arguments of the architecture, where the file does not say.",
)
@click.option("--like", metavar="MODEL_CARD", help="Take architecture, arguments and dataset from this card.")
@click.option("--name", help="Name of the card. Default: the name of the folder DEST.")
@click.option("--dataset", help="Dataset that the model was trained on.")
@click.option("--license", "license_", default="unstated", show_default=True, help="Licence of the weights.")
@click.option("--source", "origin", help="Where the weights come from, e.g. their address.")
def convert(
    source: Path,
    dest: Path,
    architecture: str | None,
    config_file: Path | None,
    like: str | None,
    name: str | None,
    dataset: str | None,
    license_: str,
    origin: str | None,
) -> None:
    """Turn a foreign checkpoint into safetensors, a configuration and a card, executing nothing in it.

    SOURCE is an EDM .pkl as NVlabs publish it, a .pt or .pth state dict, or a .safetensors file. DEST is a new folder, an empty
    one, or one that an earlier conversion made. An EDM .pkl says what its network is; a state dict needs --architecture and
    --config, or --like.

    \b
    Examples:
      rdc-bench models convert edm-cifar10-32x32-cond-vp.pkl models/edm-cifar10 --dataset cifar10 --license "CC BY-NC-SA 4.0"
      rdc-bench models convert student.pt student --architecture EDMPrecond --config student.yaml --dataset cifar10
      rdc-bench models convert resnet.pth my-resnet --like standard-fashion-mnist
    """
    from rdc_bench.hub.convert import Label, Shape, convert

    shape = Shape(architecture=architecture, config_file=config_file, like=like)
    label = Label(name=name or dest.resolve().name, dataset=dataset, license=license_, source=origin)
    click.echo(convert(source, dest, shape, label))
