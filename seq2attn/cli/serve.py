"""The command `serve`: models behind HTTP, with a page."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import click

from seq2attn.cli.completion import run_folders
from seq2attn.cli.options import CHECKPOINT, DEVICE, ENGINE, PRECISION, QUANTIZE, RunPath, cli
from seq2attn.serving.limits import Limits

F = TypeVar("F", bound=Callable[..., object])
LIMITS = "seq2attn.limits"  # key of the context under which the limits are kept


def limit(flag: str, kind: click.IntRange | click.FloatRange, text: str) -> Callable[[F], F]:
    """Return an option for a limit of the server: a field of `Limits`, with or without max-."""
    name = flag.removeprefix("--").removeprefix("max-").replace("-", "_")

    def remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        context.meta.setdefault(LIMITS, {})[name] = value

    default = getattr(Limits(), name)
    return click.option(
        flag, type=kind, default=default, show_default=True, help=text, expose_value=False, callback=remember
    )


def _named(runs: tuple[str, ...]) -> dict[str, Path]:
    """Return run folders by their names. UsageError for two of one name."""
    named: dict[str, Path] = {}
    for run in runs:
        name, given, path = run.partition("=")
        folder = RunPath(path_type=Path).convert(path if given else run, None, None)  # of the hub, too
        name = name if given else folder.resolve().name
        if name in named or not name.isprintable() or not name:
            raise click.UsageError(
                f"expected a name of its own for each run, as in NAME=RUN; got {name!r} for {run}"
            )
        named[name] = folder
    return named


@cli.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN|NAME=RUN...", shell_complete=run_folders)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one."
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with the token that clients must send: Authorization: Bearer TOKEN.",
)
@click.option(
    "--cors", multiple=True, metavar="ORIGIN", help="Let pages of this origin ask, too. May be repeated."
)
@limit("--max-lines", click.IntRange(1), "Texts of a request.")
@limit("--max-characters", click.IntRange(1), "Characters of a text.")
@limit("--max-images", click.IntRange(1), "Images of a request.")
@limit("--max-pixels", click.IntRange(1), "Pixels of an image.")
@limit("--max-body", click.IntRange(1), "Bytes of a request.")
@limit("--max-waiting", click.IntRange(1), "Lines that wait for a model; more are refused with 429.")
@limit("--max-beam", click.IntRange(1), "Largest beam of a request.")
@limit("--timeout", click.FloatRange(0.01), "Seconds until a request that was not begun gets 503.")
@limit("--batch-seconds", click.FloatRange(0.01), "Seconds that a batch may take.")
@limit("--grace", click.FloatRange(0), "Seconds for accepted requests after SIGTERM.")
@CHECKPOINT
@DEVICE
@PRECISION
@ENGINE
@QUANTIZE
@click.pass_context
def serve(
    context: click.Context,
    runs: tuple[str, ...],
    host: str,
    port: int,
    token_file: Path | None,
    cors: tuple[str, ...],
    checkpoint: str,
    device: str,
    precision: str,
    engine: str,
    quantize: str | None,
) -> None:
    """Serve the models of RUNs over HTTP, with a page at / and the interface of LibreTranslate.

    Lines of all requests are computed in common batches, and no result depends on what else is asked. The log
    is JSON on standard error, without any text.

    \b
    seq2attn serve runs/quickstart
    seq2attn serve de-en=runs/quickstart ner=runs/conll2003_pooling --port 8000 --token-file token.txt
    curl -d '{"text": "Wo ist der Bahnhof?"}' -H 'Content-Type: application/json' localhost:8080/v1/translate
    """
    named = _named(runs)
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise click.ClickException("serving needs more packages: pip install 'seq2attn[serve]'")
    from seq2attn.inference.engines.registry import TORCH, check_engine, make_engine
    from seq2attn.inference.writing_predictor import WritingPredictor
    from seq2attn.serving.counters import Counters
    from seq2attn.serving.opening import open_models, read_token
    from seq2attn.serving.server import run
    from seq2attn.serving.serving import Serving
    from seq2attn.tasks.loading import load

    limits, counters = Limits(**context.meta[LIMITS]), Counters()
    token = "" if token_file is None else read_token(token_file)
    check_engine(engine, quantize, precision)
    opened = partial(load, checkpoint=checkpoint, device=device, precision=precision)
    engines = partial(make_engine, engine, quantize=quantize)
    models = open_models(named, opened, engines, limits, counters)
    if engine != TORCH and not any(isinstance(one.predictor, WritingPredictor) for one in models.values()):
        raise click.ClickException(f"the engine {engine} searches for texts, and none of these models does")
    run(Serving(models, limits, counters, token, cors), host, port)
