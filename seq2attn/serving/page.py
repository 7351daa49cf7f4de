"""The page: one file, whose style and script are allowed by their hashes, and nothing else."""

import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple


class Page(NamedTuple):
    """A page, and the headers that it is sent with."""

    html: str
    headers: Mapping[str, str]

    @classmethod
    def read(cls) -> "Page":
        """Return the page of the package."""
        html = files("seq2attn.serving").joinpath("page.html").read_text(encoding="utf-8")
        policy = (
            "default-src 'none'",
            f"script-src {_hash(html, 'script')}",
            f"style-src {_hash(html, 'style')}",
            "connect-src 'self'",
            "img-src data: blob:",
            *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
        )
        headers = {
            "content-security-policy": "; ".join(policy),
            "cache-control": "no-cache",
            "referrer-policy": "no-referrer",
        }
        return cls(html, headers)


def _hash(html: str, tag: str) -> str:
    """Return the hash of the content of the only element with this tag, as the policy names it."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digest = b64encode(sha256(content.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"
