"""The command `seq2attn` itself, and the options that its commands share."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from seq2attn.version import __version__

DEVICE = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps; auto = the best."
)
PRECISION = click.option(
    "--precision", default="fp32", show_default=True, help="fp32, bf16 (faster in batches on many), fp16."
)
CHECKPOINT = click.option(
    "--checkpoint",
    default="best",
    show_default=True,
    help="best, last, average, or a file below RUN/weights.",
)
RECIPE = click.argument("recipe")
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
RUN = click.argument("run", type=click.Path(path_type=Path))

DECODING = "seq2attn.decoding"  # where a command finds the decoding options that were given


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and parameter.name:
        context.meta.setdefault(DECODING, {})[parameter.name] = value


def decoding_option(flag: str, kind: type, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option that changes the recipe's decoding."""
    options: dict[str, Any] = {"is_flag": True, "default": None} if kind is bool else {"type": kind}
    return click.option(flag, help=text, expose_value=False, callback=_remember, **options)


BEAM = decoding_option("--beam", int, "Hypotheses that are followed; 1 = greedy.")
LENGTH_PENALTY = decoding_option("--length-penalty", float, "Power of the length that scores are divided by.")
COVERAGE_PENALTY = decoding_option(
    "--coverage-penalty", float, "Weight of what was not looked at; of samples, only ranks them."
)


def formats(text: str, *others: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """--format: text, or one of the others."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(["text", *others]),
        default="text",
        show_default=True,
        help=text,
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="seq2attn")
@click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    envvar="SEQ2ATTN_IMPORT",
    help="Import a module by its name (no file) that adds scorers or normalizers of your own. Also as "
    "SEQ2ATTN_IMPORT.",
)
def cli(modules: tuple[str, ...]) -> None:
    """Train, score, use, and look into models with pluggable attention: they translate, summarize, tag words
    (names, say), and classify sentences.

    \b
    seq2attn recipes                              what ships
    seq2attn train quickstart                     runs/quickstart; conll2003_pooling, languages, ... the same
    echo "Ich habe Hunger." | seq2attn translate runs/quickstart
    seq2attn summarize runs/samsum_pointer chat.txt --whole
    seq2attn tag runs/conll2003_pooling news.txt
    echo "Where is the station?" | seq2attn classify runs/languages
    seq2attn heatmap runs/quickstart "Ich habe Hunger." -o hunger.png
    """
    if not modules:
        return
    from seq2attn.recipe.plugins import import_parts

    sys.path.insert(0, "")  # modules of the working directory, as for `python -m`
    for module in modules:
        import_parts(module)
    os.environ["SEQ2ATTN_IMPORT"] = " ".join(modules)  # trainings in processes of their own need them, too
