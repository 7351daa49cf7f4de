"""What a server accepts."""

from typing import NamedTuple

PIXELS_OF_A_LINE = 2**14  # an image counts as a line of text for each so many pixels
CHARACTERS_OF_A_LINE = 500  # and a long text as a line for each so many characters


class Limits(NamedTuple):
    """What a server accepts. More is refused, with the reason."""

    lines: int = 10_000  # of a request
    characters: int = 20_000  # of a line
    images: int = 64  # of a request
    pixels: int = 2**24  # of an image
    body: int = 2**24  # bytes of a request
    waiting: int = 20_000  # lines that wait for a model
    beam: int = 20  # and hypotheses that are asked for
    timeout: float = 60.0  # seconds until a request that waits is begun, and for its body to arrive
    batch_seconds: float = 1.0  # how long a batch may take
    grace: float = 30.0  # seconds for accepted requests when the server is stopped
