"""The ids that files of COCO give to categories and images, for results that are scored against them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from seq2attn.data.box_formats import read_coco
from seq2attn.data.report import DataError
from seq2attn.recipe.box_data import AnyBoxes, CocoCorpus

Id = int | str


class CocoIds(NamedTuple):
    """The ids of a file of COCO."""

    path: Path
    categories: Mapping[str, Id]  # by name
    images: Mapping[str, Sequence[Id]]  # by file_name, and by each end of it: a/b.jpg and b.jpg

    @classmethod
    def read(cls, path: Path) -> "CocoIds":
        """Read a file. DataError if it is none of COCO."""
        content = read_coco(path)
        images = defaultdict[str, list[Id]](list)
        for name, number in _numbered(content["images"], "file_name"):
            for end in _ends(name):
                images[end].append(number)
        return cls(path, _categories(content), images)

    def image_id(self, image: str) -> Id:
        """Return the id of an image by its path, of which the last part at least is that of a file_name.
        DataError if there is no such image, or several."""
        ids = next((self.images[end] for end in _ends(image) if end in self.images), [])
        if len(ids) != 1:
            there = f"{len(ids)} images of this file_name" if ids else "no image with this file_name"
            raise DataError(f"{image}: {self.path} has {there}")
        return ids[0]


def corpus_category_ids(corpora: Iterable[AnyBoxes]) -> dict[str, Id]:
    """Return the ids of the categories of all files of COCO among some corpora; of a name with several ids,
    the first."""
    ids = dict[str, Id]()
    for corpus in corpora:
        if isinstance(corpus, CocoCorpus):
            ids = {**_categories(read_coco(Path(corpus.coco))), **ids}
    return ids


def category_ids(labels: Iterable[str], *given: Mapping[str, Id]) -> dict[str, Id]:
    """Return an id for each label: the first that is given for it, and that no other label has; or else a
    number of its own, above all that are given, or from 1."""
    used = {one for ids in given for one in ids.values()}
    free = max((one for one in used if isinstance(one, int)), default=0)
    chosen = dict[str, Id]()
    labels = list(labels)
    for ids in given:
        for label in labels:
            if label in ids and label not in chosen and ids[label] not in chosen.values():
                chosen[label] = ids[label]
    for label in labels:
        if label not in chosen:
            chosen[label] = free = free + 1
    return chosen


def _categories(content: Mapping[str, Any]) -> dict[str, Id]:
    """Return the ids of categories by name; of a name with several, the first."""
    return dict([*_numbered(content["categories"], "name")][::-1])


def _numbered(rows: Iterable[Any], key: str) -> Iterator[tuple[str, Id]]:
    """Yield the names and ids of rows that have both."""
    for row in rows:
        name, number = (row.get(key), row.get("id")) if isinstance(row, dict) else (None, None)
        if isinstance(name, str) and isinstance(number, int | str) and not isinstance(number, bool):
            yield name, number


def _ends(name: str) -> list[str]:
    """Return a path, and what is left of it without its first folder, its first two, ..."""
    parts = PurePath(name).parts
    return ["/".join(parts[first:]) for first in range(len(parts))]
