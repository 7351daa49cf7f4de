"""The texts and cells of an HTML page."""

import re
from html import unescape
from html.parser import HTMLParser


class Page(HTMLParser):
    """A parsed page; an assertion fails if tags do not close in their order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.styles: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "td":
            self.styles.append(str(dict(attrs)["style"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def static(html: str) -> str:
    """What is shown of a result where scripts are off: in an iframe, what stands in its noscript."""
    found = re.fullmatch('<iframe srcdoc="([^"]*)"[^<>]*></iframe>', html)
    return re.findall("<noscript>(.*?)</noscript>", unescape(found[1]), re.DOTALL)[0] if found else html
