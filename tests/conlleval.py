"""conlleval's algorithm once more, to compare with: one pass over the tokens, chunks that begin and end.

As the program of the CoNLL-2000 task has it, with the letters E and S as its later versions do.
"""

from collections import Counter

# letters of the token before and of this one, between which a chunk ends, or starts
ENDS = {"BB", "BS", "BO", "IB", "IS", "IO", "EB", "EI", "EE", "ES", "EO", "SB", "SI", "SE", "SS", "SO"}
STARTS = {"BB", "BS", "IB", "IS", "EB", "EI", "EE", "ES", "SB", "SI", "SE", "SS", "OB", "OI", "OE", "OS"}


def parts(tag: str) -> tuple[str, str]:
    letter, _, kind = tag.partition("-")
    return letter, kind


def ended(before: tuple[str, str], now: tuple[str, str]) -> bool:
    return before[0] + now[0] in ENDS or (before[0] != "O" and before[1] != now[1])


def started(before: tuple[str, str], now: tuple[str, str]) -> bool:
    return before[0] + now[0] in STARTS or (now[0] != "O" and before[1] != now[1])


def chunks(tags: list[str]) -> list[tuple[str, int, int]]:
    """The chunks of one sequence of tags."""
    found, start, before = [], None, ("O", "")
    for place, tag in enumerate([*tags, "O"]):
        now = parts(tag)
        if start is not None and ended(before, now):
            found.append((before[1], start, place))
            start = None
        if started(before, now):
            start = place
        before = now
    return found


def evaluate(guesses: list[list[str]], golds: list[list[str]]) -> tuple[int, int, Counter, Counter, Counter]:
    """Tokens, right tokens, and the correct, guessed and gold chunks by type, counted while reading."""
    tokens = right = 0
    correct, guessed, gold = Counter(), Counter(), Counter()
    inside = False  # a chunk that began with the same type in both and has not ended in either
    kind = ""
    last_guess = last_gold = ("O", "")
    for guess_tags, gold_tags in zip(guesses, golds, strict=True):
        for guess_tag, gold_tag in zip([*guess_tags, None], [*gold_tags, None], strict=True):
            guess, true = parts(guess_tag or "O"), parts(gold_tag or "O")
            if inside:
                both = ended(last_guess, guess), ended(last_gold, true)
                if all(both) and last_guess[1] == last_gold[1]:
                    inside = False
                    correct[kind] += 1
                elif both[0] != both[1] or guess[1] != true[1]:
                    inside = False
            starts = started(last_guess, guess), started(last_gold, true)
            if all(starts) and guess[1] == true[1]:
                inside, kind = True, true[1]
            guessed[guess[1]] += starts[0]
            gold[true[1]] += starts[1]
            if gold_tag is not None:
                tokens += 1
                right += guess == true
            last_guess, last_gold = guess, true
    return tokens, right, +correct, +guessed, +gold
