"""The log: a line of JSON for each record, without any text or token of a request."""

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

LOGGER = logging.getLogger("seq2attn.serving")
_KNOWN = (LOGGER.name, "uvicorn")


class JsonFormatter(logging.Formatter):
    """Writes records as lines of JSON. Of an error it writes its class and the line of code that raised it,
    and not its message, which may have a part of a text."""

    def format(self, record: logging.LogRecord) -> str:
        """See the base class."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            # messages of other libraries, as those of asyncio on a task that failed, may have parts of texts
            "event": record.getMessage() if record.name.startswith(_KNOWN) else record.name,
        }
        entry |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            entry |= fault(record.exc_info[1])
        return json.dumps(entry)


def fault(error: BaseException) -> dict[str, str]:
    """Return the class of an error, and where it was raised."""
    place, trace = "", error.__traceback__
    while trace is not None:
        place, trace = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}", trace.tb_next
    return {"error": type(error).__name__, "at": place}


def record(event: str, fields: Mapping[str, Any], level: int = logging.INFO) -> None:
    """Write a record. Fields are numbers and names, never texts."""
    LOGGER.log(level, event, extra={"fields": fields})


def log_to(stream: Any) -> None:
    """Write the records of the server, and the warnings and errors of all libraries, to a stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().handlers = [handler]
    LOGGER.setLevel(logging.INFO)
    for name in ("uvicorn", "python_multipart"):
        logging.getLogger(name).setLevel(logging.WARNING)
