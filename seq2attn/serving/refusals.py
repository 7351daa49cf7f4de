"""Why a request is refused: the status of the answer, and what to do."""

from seq2attn.errors import Seq2attnError
from seq2attn.images.decoding import ImageError
from seq2attn.runtime.devices import OutOfMemoryError
from seq2attn.serving.image_works import TooLargeError
from seq2attn.serving.waiting import QueueFullError, StoppedError

INVALID, TOO_LARGE, TOO_MANY, UNAVAILABLE, FAILED, LEFT = 422, 413, 429, 503, 500, 499


class RefusedError(Exception):
    """An answer that is an error.

    status: that of HTTP. message: for the client. retry_after: seconds after which it may ask again.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


def refused(error: Exception, retry_after: int = 1) -> RefusedError:
    """Return the answer to an error: its message if the client can do something about it."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, QueueFullError):
        return RefusedError(TOO_MANY, str(error), retry_after)
    if isinstance(error, StoppedError):
        return RefusedError(UNAVAILABLE, str(error), retry_after)
    if isinstance(error, TooLargeError):
        return RefusedError(TOO_LARGE, str(error))
    if isinstance(error, ImageError):
        return RefusedError(INVALID, str(error))
    if isinstance(error, OutOfMemoryError):
        return RefusedError(
            UNAVAILABLE, "the server has not enough memory for this: send less at once", retry_after
        )
    if isinstance(error, Seq2attnError):
        return RefusedError(INVALID, str(error))
    return RefusedError(FAILED, "internal error: see the log of the server")
