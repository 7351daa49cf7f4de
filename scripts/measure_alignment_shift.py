"""Measure which row of weights aligns a target word: that of the step which predicts it, or the next one.

    python scripts/measure_alignment_shift.py RUN [CHECKPOINT]

Needs no gold alignment, because names, numbers and the like are spelled alike in both sentences. For each
such word of the dev set that occurs once on each side, the script checks whether the row of the target word
has its largest weight on the source word. Prints a line for each layer and shift.
"""

import re
import sys

from seq2attn.alignment.word_alignment import by_words, shifted
from seq2attn.data.sources import SourceIds
from seq2attn.inference.generator import AlignmentHead
from seq2attn.runs.evaluation import held_out, source_and_reference_texts
from seq2attn.tasks.loading import load_with_task

BATCH_TOKENS = 4000
SHORTEST = 3  # letters; shorter words are alike by chance


def plain(word: str) -> str:
    """Return the letters and digits of a word in lower case."""
    return re.sub(r"\W", "", word).lower()


def main(run: str, checkpoint: str = "best") -> None:
    """Print the share of words that are aligned correctly, and the mean weight on the right source word."""
    task, model = load_with_task(run, checkpoint)
    examples = held_out(task, "dev")
    pairs = list(zip(*source_and_reference_texts(examples), strict=True))
    for layer in range(model.model.decoder.attention_layers):
        for shift in (0, 1):
            count, correct, mass = 0, 0, 0.0
            for source_text, target_text in pairs:
                source, target = model.source.split(source_text), model.target.split(target_text)
                sources = [plain(word) for word in source.words]
                targets = [plain(word) for word in target.words]
                same = [
                    word
                    for word in {*targets}
                    if len(word) >= SHORTEST and sources.count(word) == targets.count(word) == 1
                ]
                if not same:
                    continue
                (forced,) = model.generator.forced_decoding(
                    [SourceIds(source.ids)], [target.ids], BATCH_TOKENS, AlignmentHead(layer)
                )
                words = by_words(
                    shifted(forced.weights, shift), target.word_of, source.word_of, source_eos=True
                )
                for word in same:
                    row, column = words.weights[targets.index(word)], sources.index(word)
                    count += 1
                    correct += int(row.argmax() == column)
                    mass += float(row[column])
            shares = f"correct {correct / count:.3f}  weight {mass / count:.3f}"
            print(f"layer {layer}  shift {shift}  {count} words  {shares}")


if __name__ == "__main__":
    main(*sys.argv[1:])
