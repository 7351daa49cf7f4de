"""The commands that write text: `translate` and `summarize`."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seq2attn.cli.inputs import FILES, Pipe, chunks, is_json_lines, lines
from seq2attn.cli.options import (
    BEAM,
    CHECKPOINT,
    COVERAGE_PENALTY,
    DECODING,
    DEVICE,
    LENGTH_PENALTY,
    MAX_LENGTH_RATIO,
    PRECISION,
    RUN,
    cli,
    decoding_option,
    engine_options,
    formats,
    refuse,
)
from seq2attn.cli.sharing import PROCESSES, print_lines

if TYPE_CHECKING:
    from seq2attn.alignment.markup import Kind
    from seq2attn.inference.translator import Translator


MARKED = 2000  # marked lines that are read at a time


def generation_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of commands that generate text."""
    options: list[Callable[[Callable[..., None]], Callable[..., None]]] = [
        BEAM,
        LENGTH_PENALTY,
        COVERAGE_PENALTY,
        decoding_option(
            "--nbest",
            int,
            "Print this many hypotheses for each input; a beam of the recipe that is smaller becomes as "
            "large. If there are fewer, the last lines are empty, with "
            "the score -inf; JSON leaves them out.",
        ),
        click.option(
            "--prefix",
            default="",
            help="The beginning of each output. Its last word may go on, unless a space ends it.",
        ),
        decoding_option("--min-length", int, "Minimum length of the output, in pieces."),
        decoding_option("--max-length", int, "Maximum length of the output, in pieces."),
        MAX_LENGTH_RATIO,
        decoding_option("--no-repeat-ngram", int, "Forbid repeated n-grams of this many pieces."),
        decoding_option(
            "--replace-unknown",
            bool,
            "Replace unknown pieces by the source word with the highest attention weight.",
        ),
        decoding_option("--sample", bool, "Sample instead of searching."),
        decoding_option("--top-k", int, "Sample from the k most probable pieces."),
        decoding_option(
            "--top-p", float, "Sample from the most probable pieces whose probabilities sum to p."
        ),
        decoding_option("--temperature", float, "Temperature of sampling."),
        decoding_option("--seed", int, "Seed of sampling."),
        decoding_option("--batch-tokens", int, "Batch size: source tokens times beam size."),
        click.option(
            "--scores",
            is_flag=True,
            help="Print the score of each text before it, separated by a tab. JSON and pages have it anyway.",
        ),
        CHECKPOINT,
        DEVICE,
        PRECISION,
        PROCESSES,
        click.pass_context,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@cli.command()
@RUN
@FILES
@formats(
    "text; pharaoh: text, tab, word alignment; json: everything, with the source; view: a page of all lines, "
    "as HTML (see the command view).",
    "pharaoh",
    "json",
    "view",
)
@click.option(
    "--markup",
    type=click.Choice(["html", "xml", "placeholders"]),
    help="Keep the tags, or the placeholders ({name}, %s), of each line: they go where their words went.",
)
@click.option("--tag", help="Begin each line with this tag of the model, such as the target language.")
@generation_options
@engine_options
def translate(
    context: click.Context,
    run: Path,
    files: tuple[Path, ...],
    prefix: str,
    scores: bool,
    form: str,
    markup: "Kind | None",
    tag: str | None,
    checkpoint: str,
    device: str,
    precision: str,
    engine: str,
    quantize: str | None,
) -> None:
    """Translate FILES, or standard input, line by line, in order.

    \b
    echo "Wo ist der Bahnhof?" | seq2attn translate runs/quickstart
    seq2attn translate runs/quickstart in.de --beam 10 --nbest 3 --scores > out.en
    seq2attn translate runs/quickstart in.de --format pharaoh | cut -f 2
    seq2attn translate runs/quickstart in.de --format view > in.html
    echo "Wo ist <b>der Bahnhof</b>?" | seq2attn translate runs/quickstart --markup html
    echo "Where is the station?" | seq2attn translate runs/opus-en-romance --tag ">>fra<<"
    """
    from seq2attn.tasks.loading import load_for

    _refuse_unused(context, form, markup)
    translator = load_for("translate", run, checkpoint, device, precision, engine, quantize)
    pipe = Pipe.open(files)
    texts = lines(files, pipe) if tag is None else _tagged(translator, lines(files, pipe), tag)
    if markup is not None:
        options = context.meta.get(DECODING, {})

        def marked(first: int, chunk: list[str]) -> Iterator[str]:
            return map(str, translator.translate(chunk, markup=markup, **options))

        print_lines(chunks(texts, MARKED, pipe), marked)
        return
    if form == "view":
        whole = (list(given) for given in [texts])
        print_lines(whole, lambda _, given: [_page(context, run, translator, given, prefix)])
        return
    _write(context, translator, texts, pipe, prefix, scores, form)


def _refuse_unused(context: click.Context, form: str, markup: str | None) -> None:
    """Raise UsageError for options that have no effect with markup, or on a page."""
    if markup is not None:
        shown = ("scores", "prefix", "nbest", *(["form"] if form != "text" else []))
        refuse(context, shown, "--markup prints the best text of each line")
    if form == "view":
        refuse(context, ("engine", "quantize", "batch_tokens"), "a page shows searches of torch, one by one")


def _page(context: click.Context, run: Path, translator: "Translator", texts: list[str], prefix: str) -> str:
    """Return the page of all texts."""
    from seq2attn.inference.viewing import ViewOptions, page_of

    predictors, options = {run.resolve().name: translator}, [ViewOptions(prefix=prefix)] * len(texts)
    return page_of(predictors, texts, options, context.meta.get(DECODING, {})).html().rstrip("\n")


@cli.command()
@RUN
@FILES
@click.option(
    "--key", default="source", show_default=True, help="Key of the documents in JSONL; dotted if nested."
)
@click.option("--whole", is_flag=True, help="Each file is one document, instead of each line.")
@formats("text; json: everything, with source, alignment and copy probabilities.", "json")
@generation_options
@engine_options
def summarize(
    context: click.Context,
    run: Path,
    files: tuple[Path, ...],
    prefix: str,
    scores: bool,
    key: str,
    whole: bool,
    form: str,
    checkpoint: str,
    device: str,
    precision: str,
    engine: str,
    quantize: str | None,
) -> None:
    """Summarize the documents in FILES, or in standard input. Prints one summary a line, in order.

    Each line is a document. In a .jsonl file each row is one: a text, or a list of sentences.

    \b
    seq2attn summarize runs/samsum dialogues.jsonl --key dialogue > summaries.txt
    seq2attn summarize runs/samsum chat.txt --whole --no-repeat-ngram 3
    """
    from seq2attn.cli.documents import documents
    from seq2attn.tasks.loading import load_for

    if not any(map(is_json_lines, files)):
        refuse(context, ("key",), "only .jsonl has keys")
    summarizer = load_for("summarize", run, checkpoint, device, precision, engine, quantize)
    pipe = Pipe.open(files)
    _write(context, summarizer, documents(files, key, whole, pipe), pipe, prefix, scores, form)


def _tagged(translator: "Translator", texts: Iterable[str], tag: str) -> Iterator[str]:
    """Yield texts that begin with a tag; blank ones stay blank. Seq2attnError if the model has none such."""
    from seq2attn.errors import Seq2attnError
    from seq2attn.text.given_ids import with_tag

    if not translator.source.has_tag(tag):
        raise Seq2attnError(f"the model has no tag {tag}: expected one of its text.tags")
    return (with_tag(text, tag) for text in texts)


def _write(
    context: click.Context,
    translator: "Translator",
    texts: Iterable[str],
    pipe: Pipe | None,
    prefix: str,
    scores: bool,
    form: str,
) -> None:
    """Print the hypotheses for each text as soon as they are ready.

    JSON has the numbers of the texts. Without them, a text has as many lines as hypotheses are asked for:
    for those that do not exist, empty ones with the score of an impossible text.
    """
    from seq2attn.inference.writing_predictor import CHUNK

    decoding, shown = translator.settings(context.meta.get(DECODING, {})), scores or form != "text"

    def written(first: int, chunk: list[str]) -> Iterator[str]:
        results = translator.stream_chunks([chunk], decoding, form != "text", shown, first, prefix)
        for number, (source, result) in enumerate(zip(chunk, results, strict=True), first + 1):
            missing = decoding.nbest - len(result.nbest)
            if form == "json":
                for hypothesis in result.nbest:
                    entry = {"number": number, "source": source, **hypothesis.to_json()}
                    entry.pop("nbest", None)
                    yield json.dumps(entry, ensure_ascii=False)
                continue
            for hypothesis in result.nbest:
                text = " ".join(hypothesis.text.split("\n"))  # byte pieces can spell a line feed
                links = hypothesis.pharaoh() if form == "pharaoh" else ""
                yield _line(hypothesis.score, text, links, scores, form)
            for _ in range(missing):
                yield _line(-math.inf, "", "", scores, form)

    print_lines(chunks(texts, CHUNK, pipe), written)


def _line(score: float, text: str, links: str, scores: bool, form: str) -> str:
    """Return a line of output: score, text, alignment."""
    first, last = [f"{score:.4f}"] if scores else [], [links] if form == "pharaoh" else []
    return "\t".join([*first, text, *last])
