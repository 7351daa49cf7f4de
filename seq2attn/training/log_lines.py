"""The lines of log.jsonl: those up to a step, and the checksum of its start."""

import hashlib
import json


def kept_lines(content: bytes, step: int, ended: bool = False) -> tuple[bytes, str]:
    """Return the lines of a log up to a step, and the first fault among its lines, or an empty text.

    ended: keep the records of averages, too. An unfinished last line, of a killed training, is no fault.
    """
    kept, fault = list[bytes](), ""
    *lines, _ = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if record["step"] <= step if "step" in record else (ended and "average" in record):
                kept.append(line + b"\n")
        except (ValueError, TypeError, LookupError, RecursionError):
            fault = fault or f"line {number} is no record"
    return b"".join(kept), fault


def log_checksum(content: bytes) -> tuple[int, str]:
    """Return size and checksum of the start of a log."""
    return len(content), hashlib.sha256(content).hexdigest()
