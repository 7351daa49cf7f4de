"""An option that has no effect beside the others is refused, before anything is computed."""

from pathlib import Path

import click
import pytest
from tiny_cli import MODEL, fails, pair_files
from tiny_cli import run as printed

from seq2attn.cli.options import refuse

UNUSED = {  # command lines, and what they are to leave out; {a} and {b} are files, {folder} is a folder
    "align {run} {a} {b} --choose {a} -o links": "--output",
    "align {run} {a} {b} --choose {a} --head 1 --gold {b}": "--head, --gold",
    "align {run} {a} {b} --symmetrize union": "--symmetrize",
    "align {run} {a} {b} --reverse {run} --symmetrize forward": "--reverse",
    "align {run} {a} {b} --iterations 2": "--iterations",
    "align --with hmm {a} {b} --device cpu --precision fp32": "--device, --precision",
    "align --with ibm1 {a} {b} --checkpoint best --layer 0": "--layer, --checkpoint",
    "compare {a} {b} --references {a} --beam 2 --device cpu": "--beam, --device",
    "compare {run} {a} --source {a} --references {b} --data dev": "--data",
    "compare {run} {a} --parts ngrams --gold {a}": "--gold",
    "compare {run} {a} --parts none --training {a}": "--training",
    "export {run} onnx -o {folder}/out --source {a} --check 3": "--check",
    "generate {run} -o {folder} --columns 3": "--columns",
    "heatmap {run} Ja. --target Yes. --beam 2": "--beam",
    "score --hypotheses {a} --references {b} --data dev --beam 2": "--data, --beam",
    "score --hypotheses {a} --references {b} --engine onnx": "--engine",
    "score --hypotheses {a} --references {b} --key x --checkpoint last": "--key, --checkpoint",
    "score {run} --source {a} --references {b} --data dev": "--data",
    "score {run} --source {a} --references {b} --key x": "--key",
    "score {run} --key x": "--key",
    "summarize {run} {a} --key x": "--key",
    "translate {run} {a} --format view --engine onnx": "--engine",
    "translate {run} {a} --format view --batch-tokens 5": "--batch-tokens",
    "translate {run} {a} --markup html --nbest 2": "--nbest",
    "translate {run} {a} --markup html --scores --prefix x": "--prefix, --scores",
    "translate {run} {a} --markup html --format json": "--format",
    "view {run} Ja. --target Yes. --nbest 2": "--nbest",
}


@pytest.mark.parametrize("line", sorted(UNUSED))
def test_an_option_without_effect_is_refused(line: str, tmp_path: Path) -> None:
    a, b = pair_files(tmp_path)
    status, error = fails(*line.format(run=MODEL, a=a, b=b, folder=tmp_path).split())
    assert status == 2 and error.endswith(f": leave out {UNUSED[line]}\n"), error


def test_only_what_was_given_is_refused() -> None:
    @click.command()
    @click.argument("file", default="none")
    @click.option("-n", "--number", default=1)
    @click.pass_context
    def command(context: click.Context, file: str, number: int) -> None:
        refuse(context, ("file", "number"), "nothing is read")

    command.main([], standalone_mode=False)
    for words, named in ((["-n", "1"], "--number"), (["a", "--number", "2"], "FILE, --number")):
        with pytest.raises(click.UsageError, match=f"^nothing is read: leave out {named}$"):
            command.main(words, standalone_mode=False)


def test_what_has_an_effect_is_not_refused(tmp_path: Path) -> None:
    _, b = pair_files(tmp_path)
    assert printed("translate", MODEL, b, "--markup", "html", "--format", "text").stdout.count("\n") == 3
