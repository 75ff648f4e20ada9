"""``rdc-bench models``."""

from __future__ import annotations

from pathlib import Path

import click

from rdc_bench.cli.options import json_option, print_json, with_plugins


@click.group("models")
def command() -> None:
    """Bring weights here, and say what they are.

    \b
    Examples:
      rdc-bench models info rdc-fashion-mnist
      rdc-bench models pull hf://owner/repo
      rdc-bench models push my-model hf://owner/repo
      rdc-bench models convert edm-cifar10-32x32-cond-vp.pkl models/edm-cifar10 --dataset cifar10
    """


@command.command("info")
@click.argument("name")
@json_option
@with_plugins
def info(name: str, as_json: bool) -> None:
    """Say what a model is: card, parts, weights, licence, training, figures, and whether it runs here.

    NAME is a card's name, a path to a card, a repository on the Hub (of which only the cards are fetched), or a plugin's model.

    \b
    Examples:
      rdc-bench models info rdc-fashion-mnist
      rdc-bench models info models/my-model.yaml --json
      rdc-bench models info hf://owner/repo@v1.0
    """
    from rdc_bench.cli.model_table import show_model
    from rdc_bench.describe import describe

    facts = describe(name)
    if as_json:
        print_json(facts)
    else:
        show_model(facts)


@command.command("pull")
@click.argument("reference", metavar="hf://OWNER/REPO[@REVISION]")
@json_option
def pull(reference: str, as_json: bool) -> None:
    """Fetch a model from the Hugging Face Hub into its client's cache, and verify it.

    Safetensors, cards and the README only. HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and HF_TOKEN mean what they mean to the client.

    \b
    Examples:
      rdc-bench models pull hf://owner/repo
      rdc-bench models pull hf://owner/repo@v1.0 --json
    """
    from rdc_bench.cli.progress import stage_with_bars

    with stage_with_bars(f"fetching {reference}"):
        from rdc_bench.hub.pull import pull
        from rdc_bench.hub.reference import parse_reference

        pulled = pull(parse_reference(reference))
    files = {path.name: path.stat().st_size for path in pulled.files}
    if as_json:
        reference_ = {"reference": str(pulled.reference), "repository": pulled.reference.repo_id}
        rows = [{"name": name, "bytes": size} for name, size in files.items()]
        print_json({**reference_, "commit": pulled.reference.revision, "card": str(pulled.card.path), "files": rows})
        return
    click.echo(f"{pulled.reference}\n{pulled.folder}")
    for name, size in files.items():
        click.echo(f"  {name}  {size} bytes")


@command.command("push")
@click.argument("name")
@click.argument("reference", metavar="hf://OWNER/REPO")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="A run, or a folder of runs, whose figures for this model the README states.",
)
@click.option("--private", is_flag=True, help="Make the repository private, if it is a new one.")
@click.option("--message", help="Message of the commit.")
@json_option
def push(name: str, reference: str, results: Path | None, private: bool, message: str | None, as_json: bool) -> None:
    """Publish a model on the Hugging Face Hub: its card with all parts, their weights, and a README with measured figures.

    The repository is made if there is none. Needs a token that may write: HF_TOKEN, or `hf auth login`.

    \b
    Examples:
      rdc-bench models push my-model hf://owner/repo
      rdc-bench models push rdc-fashion-mnist hf://owner/repo --results results/linf-table
      rdc-bench models push models/my-model.yaml hf://owner/repo --private --message "Longer training"
    """
    from rdc_bench.cli.progress import stage_with_bars

    with stage_with_bars(f"publishing {name}"):
        from rdc_bench.hub.push import push
        from rdc_bench.hub.reference import parse_reference

        pushed = push(name, parse_reference(reference), results=results, private=private, message=message)
    if as_json:
        commit = pushed.reference.revision
        print_json({"reference": str(pushed.reference), "commit": commit, "url": pushed.url, "files": pushed.files})
        return
    click.echo(f"{pushed.reference}\n{pushed.url}")
    for file in pushed.files:
        click.echo(f"  {file}")


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
    from rdc_bench.cli.progress import stages

    with stages(f"converting {source}"):
        from rdc_bench.hub.convert import Label, Shape, convert

        shape = Shape(architecture=architecture, config_file=config_file, like=like)
        label = Label(name=name or dest.resolve().name, dataset=dataset, license=license_, source=origin)
        path = convert(source, dest, shape, label)
    click.echo(path)
