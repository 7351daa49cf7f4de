"""Print what becomes of lines or images, in order; several processes share the work."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from seq2attn.runtime.distributed import Group

Item = TypeVar("Item")


def _start(context: click.Context, parameter: click.Parameter, count: int) -> None:
    if count > 1 and "RANK" not in os.environ:
        from seq2attn.runtime.process import start_processes

        start_processes(count, sys.argv[1:])  # each of them comes here again, and has a rank


PROCESSES = click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    expose_value=False,
    is_eager=True,
    callback=_start,
    help="Share the work among this many processes on this machine. The result is that of one.",
)


def print_lines(chunks: Iterable[list[Item]], lines: Callable[[int, list[Item]], Iterable[str]]) -> None:
    """Print the lines that chunks become, in order.

    Of the processes that torchrun has started, the first reads the chunks and prints; each computes every
    N-th chunk. One process prints a line as soon as it is there.

    lines: the lines of a chunk, and the number of items before it.
    """
    from seq2attn.runtime.distributed import joined

    with joined() as group:
        first, rest = 0, iter(chunks)
        while given := _read(rest, group):
            own = [(first + sum(map(len, given[:index])), chunk) for index, chunk in group.share(given)]
            made = (line for number, chunk in own for line in lines(number, chunk))
            parts = [made] if group.size == 1 else group.all(list(made))
            for line in chain.from_iterable(parts if group.first else []):
                click.echo(line)
            first += sum(map(len, given))


def _read(chunks: Iterator[list[Item]], group: "Group") -> list[list[Item]]:
    """Return the next chunks, one for each process, which the first one reads, however long they take."""
    given = list(islice(chunks, group.size)) if group.first else []
    group.meet()  # an exchange would not wait as long
    return group.from_first(lambda: given)
