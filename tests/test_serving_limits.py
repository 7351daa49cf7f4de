"""What would hold others up for long is refused, and what takes longer counts for more in the queue."""

from typing import Any

import pytest
from tiny_serving import client, translator

pytest.importorskip("fastapi")

from seq2attn.serving.text_works import Draft, Writing

MOST = 256  # decoding.max_length


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/translate", {"text": "Hilfe!", "prefix": "no " * (MOST + 1)}),
        ("/v1/next", {"text": "Hilfe!", "prefix": "no " * (MOST + 1)}),
        ("/v1/align", {"sources": ["Ja.", "Hilfe!"], "targets": ["Yes.", "no " * (MOST + 1)]}),
        ("/v1/align", {"sources": ["ja " * 1_025], "targets": ["Yes."]}),
    ],
)
def test_prefixes_and_pairs_are_no_longer_than_what_the_model_writes(path: str, body: dict[str, Any]) -> None:
    with client(started=False) as served:  # refused before anything is computed
        answer = served.post(path, json=body)
    error = answer.json()["error"]
    assert answer.status_code == 422 and f"at most {MOST}" in error.replace(
        "1,024 pieces in the source and ", ""
    )


def test_a_prefix_counts_in_the_queue() -> None:
    work = Writing(translator(), translator().decoding)
    plain, begun = (work.lines([Draft("Ja.", prefix)])[0] for prefix in ("", "Tom is not here. " * 30))
    assert (plain.weight, begun.weight) == (1, 2)
    assert begun.length == len(translator().target.encode(["Tom is not here. " * 30])[0]) > plain.length
