"""The command group `seq2attn`, and the options that several commands share."""

import logging
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from seq2attn.cli.completion import recipe_keys, recipe_names, run_folders
from seq2attn.errors import speaking_to_command_line
from seq2attn.version import __version__

DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu, cuda, cuda:1 or mps; auto = a GPU if there is one, else the CPU.",
)
PRECISION = click.option(
    "--precision",
    default="fp32",
    show_default=True,
    help="fp32, bf16 or fp16. bf16 is faster on many machines, for batches.",
)
CHECKPOINT = click.option(
    "--checkpoint",
    default="best",
    show_default=True,
    help="Which weights: best, last, average, or the name of a file in RUN/weights.",
)
RECIPE = click.argument("recipe", shell_complete=recipe_names)
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=recipe_keys)


class RunPath(click.Path):
    """The folder of a run; hf://user/name[@revision] stands for that in the cache, which is fetched first."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See the base class."""
        if isinstance(value, str) and value.startswith("hf://"):
            from seq2attn.pretrained.located import located

            return located(value)
        return super().convert(value, param, ctx)


class OwnRunPath(click.Path):
    """The folder of a run that is not one of the hub, whose copy in the cache is not written to."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See the base class."""
        if isinstance(value, str) and value.startswith("hf://"):
            self.fail(
                f"expected a folder of your own, got {value}, which is on the hub: seq2attn pull makes one "
                "of it",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


RUN = click.argument("run", type=RunPath(path_type=Path), shell_complete=run_folders)
OWN_RUN = click.argument("run", type=OwnRunPath(path_type=Path), shell_complete=run_folders)

DECODING = "seq2attn.decoding"  # key of the context under which the decoding options given are kept


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and parameter.name:
        context.meta.setdefault(DECODING, {})[parameter.name] = value


def refuse(context: click.Context, names: Collection[str], reason: str) -> None:
    """Raise UsageError if parameters with these names were given, since they would have no effect."""
    given = [
        max(parameter.opts, key=len) if isinstance(parameter, click.Option) else parameter.human_readable_name
        for parameter in context.command.params
        if parameter.name in names
        and context.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise click.UsageError(f"{reason}: leave out {', '.join(given)}", context)


def decoding_option(flag: str, kind: type, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return an option that overrides a key of the recipe's section `decoding`."""
    options: dict[str, Any] = {"is_flag": True, "default": None} if kind is bool else {"type": kind}
    return click.option(flag, help=text, expose_value=False, callback=_remember, **options)


BEAM = decoding_option("--beam", int, "Beam size; 1 = greedy search.")
LENGTH_PENALTY = decoding_option("--length-penalty", float, "Exponent of the length normalization of scores.")
COVERAGE_PENALTY = decoding_option(
    "--coverage-penalty",
    float,
    "Weight of the penalty for source positions with little attention; samples are only ranked by it.",
)
MAX_LENGTH_RATIO = decoding_option(
    "--max-length-ratio",
    float,
    "Maximum length of the output as a multiple of that of the source, plus 10 pieces.",
)


def _tell(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Print what the package logs on standard error while the command runs."""
    if not value:
        return
    logger, handler = logging.getLogger("seq2attn"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("seq2attn: %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    def end() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)

    context.call_on_close(end)


# Listed here so that help need not import them; a test compares this list with the registry.
ENGINES = ["torch", "ctranslate2", "onnx"]
ENGINE = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="torch",
    show_default=True,
    help="The program that searches. Scores and alignments are torch's in any case, and it makes the "
    "searches that the engine does not have.",
)
QUANTIZE = click.option(
    "--quantize",
    type=click.Choice(["int8"]),
    help="Let the engine compute with weights of 8 bits.",
)


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of commands that search."""
    options: list[Callable[[Callable[..., None]], Callable[..., None]]] = [
        ENGINE,
        QUANTIZE,
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            expose_value=False,
            callback=_tell,
            help="Say how many outputs were the engine's, and why the others were torch's.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def formats(text: str, *others: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option --format, with the choices text and others."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(["text", *others]),
        default="text",
        show_default=True,
        help=text,
    )


def _import(context: click.Context, parameter: click.Parameter, modules: tuple[str, ...]) -> None:
    if not modules:
        return
    from seq2attn.recipe.plugins import import_parts

    sys.path.insert(0, "")  # find modules in the working directory, like `python -m`
    for module in modules:
        import_parts(module)
    known = os.environ.get("SEQ2ATTN_IMPORT", "").split()
    os.environ["SEQ2ATTN_IMPORT"] = " ".join(dict.fromkeys([*known, *modules]))  # `bench` starts processes


class Commands(click.Group):
    """A group whose commands take the option --import, too."""

    group_class = type  # groups within it are of the same class

    def invoke(self, ctx: click.Context) -> Any:
        """See the base class."""
        with speaking_to_command_line():
            return super().invoke(ctx)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """See the base class."""
        option = click.Option(
            ["--import"], multiple=True, is_eager=True, expose_value=False, callback=_import, hidden=True
        )
        cmd.params.append(option)
        super().add_command(cmd, name)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="seq2attn")
@click.option(
    "--import",
    multiple=True,
    is_eager=True,  # before the commands are looked up: a module may add one
    expose_value=False,
    callback=_import,
    metavar="MODULE",
    envvar="SEQ2ATTN_IMPORT",
    help="Import a module that registers scorers, normalizers, commands or other parts: its dotted name, not "
    "a file. May be repeated, and may follow the command. Or set SEQ2ATTN_IMPORT.",
)
def cli() -> None:
    """Train, evaluate, run and inspect models with pluggable attention, for translation, summarization,
    tagging (named entities, for example), classification of texts and images, object detection, segmentation
    and generation of images, and images into text.

    \b
    seq2attn recipes                              list the recipes that ship
    seq2attn train quickstart                     train one; the run is in runs/quickstart
    echo "Ich habe Hunger." | seq2attn translate runs/quickstart
    seq2attn summarize runs/samsum_pointer chat.txt --whole
    seq2attn tag runs/conll2003_pooling news.txt
    echo "Where is the station?" | seq2attn classify runs/languages
    seq2attn caption runs/crohme_wap formula.png
    seq2attn detect runs/bccd_yolo blood.jpg -o found
    seq2attn segment runs/camvid_unet_scse street.jpg -o masks
    seq2attn generate runs/mnist_sagan -o sheet.png
    seq2attn heatmap runs/quickstart "Ich habe Hunger." -o hunger.png
    seq2attn view runs/quickstart "Ich habe Hunger." -o hunger.html
    seq2attn serve runs/quickstart                over HTTP, with a page at http://127.0.0.1:8080
    """
