"""Read images with boxes in the formats of COCO, Pascal VOC and YOLO."""

import json
import lzma
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.parsers import expat

import yaml

from seq2attn.data.box_rows import BoxForm, GivenBox, GivenBoxes
from seq2attn.data.corpora import Role
from seq2attn.data.files import decoded, existing, file_state, lines
from seq2attn.data.image_corpora import ImageRow, ImageSource, loaded
from seq2attn.data.image_files import SUFFIXES, ImageFiles, ImagePath
from seq2attn.data.report import DataError, Report
from seq2attn.recipe.box_data import CocoCorpus, VocCorpus, YoloCorpus
from seq2attn.runtime.files import COMPRESSED

LARGEST = 1 << 24  # bytes of an XML file of a single image


def open_coco(corpus: CocoCorpus, role: Role, key: str) -> ImageSource:
    """Open a JSON file of COCO. `iscrowd` makes a box a crowd; `area` is kept for scoring."""
    path = existing(corpus.coco, f"{key}.coco")
    archive = None if corpus.archive is None else existing(corpus.archive, f"{key}.archive")
    folder = path.parent if corpus.images is None else _folder(corpus.images, f"{key}.images")
    content = read_coco(path)

    def located(report: Report) -> Iterator[tuple[ImagePath, dict[str, Any]]]:
        for number, image in enumerate(content["images"]):
            name = image.get("file_name") if isinstance(image, dict) else None
            if not isinstance(name, str) or not name or not isinstance(image.get("id"), int | str):
                message = f"expected an image with id and file_name, got {json.dumps(image)[:60]}"
                report.bad("not an image of COCO", f"{path}: images {number}", message)
                continue
            yield ImagePath(archive, name if archive is not None else str(folder / name)), image

    def read(report: Report) -> Iterator[ImageRow]:
        boxes = _coco_boxes(content, path, report)
        with ImageFiles() as files:
            for image_path, image in located(report):
                height, width = image.get("height"), image.get("width")
                stated = None
                if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0:
                    stated = height, width
                given = GivenBoxes(boxes.get(image["id"], []), BoxForm("xywh"), image["id"], stated)
                yield from loaded(files, image_path, [], f"{path}: image {image['id']}", report, given)

    paths = {image.archive or Path(image.name) for image, _ in located(Report(stop=False))}
    return ImageSource(str(path), _states([path, *sorted(paths)]), read)


def read_coco(path: Path) -> dict[str, Any]:
    """Return a file of COCO. DataError if it is none."""
    try:
        with COMPRESSED.get(path.suffix, open)(path, "rb") as stream:
            content = json.load(stream)
    except (OSError, EOFError, ValueError, RecursionError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: expected JSON: {error}") from error
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise DataError(f"{path}: expected a file of COCO with a list of {name}")
    made: dict[str, Any] = content
    return made


def _coco_boxes(content: dict[str, Any], path: Path, report: Report) -> dict[Any, list[GivenBox]]:
    """Return the boxes of each image by its id."""
    names = {
        category["id"]: category["name"]
        for category in content["categories"]
        if isinstance(category, dict) and isinstance(category.get("name"), str) and "id" in category
    }
    images = {image["id"] for image in content["images"] if isinstance(image, dict) and "id" in image}
    boxes: dict[Any, list[GivenBox]] = {}
    for number, box in enumerate(content["annotations"]):
        box = box if isinstance(box, dict) else {}
        where = f"{path}: annotation {box.get('id', f'in place {number}')}"
        if not isinstance(box.get("image_id"), int | str) or box["image_id"] not in images:
            report.bad("no image", where, f"there is no image {json.dumps(box.get('image_id'))[:40]}")
        elif not isinstance(box.get("category_id"), int | str) or box["category_id"] not in names:
            unknown = json.dumps(box.get("category_id"))[:40]
            report.bad("unknown label", where, f"there is no category {unknown}")
        else:
            area = box.get("area")
            area = float(area) if isinstance(area, int | float) and area >= 0 else None
            given = GivenBox(
                box.get("bbox"), names[box["category_id"]], where, bool(box.get("iscrowd")), area
            )
            boxes.setdefault(box["image_id"], []).append(given)
    return boxes


def open_voc(corpus: VocCorpus, role: Role, key: str) -> ImageSource:
    """Open a folder of XML files of Pascal VOC. An image is found by the name of its XML file; objects that
    are marked `difficult` are treated as crowds: neither learned nor counted as errors."""
    folder = _folder(corpus.voc, f"{key}.voc")
    beside = folder.parent / "JPEGImages"
    images = (
        (beside if beside.is_dir() else folder)
        if corpus.images is None
        else _folder(corpus.images, f"{key}.images")
    )
    names = sorted(path.stem for path in folder.glob("*.xml"))
    if corpus.names is not None:
        names = [name for name in _names(existing(corpus.names, f"{key}.names")) if name]
    if not names:
        raise DataError(f"{key}.voc: expected .xml files in {folder}, and there is none")
    by_stem = {path.stem: path for path in sorted(images.iterdir()) if path.suffix.lower() in SUFFIXES}
    form = BoxForm("xyxy", corpus.inclusive)

    def read(report: Report) -> Iterator[ImageRow]:
        with ImageFiles() as files:
            for name in names:
                path = folder / f"{name}.xml"
                given = _voc_boxes(path, name, form, report)
                image = ImagePath(None, str(by_stem.get(name, images / f"{name}.jpg")))
                if given is not None:
                    yield from loaded(files, image, [], str(path), report, given)

    paths = [folder / f"{name}.xml" for name in names] + [by_stem[name] for name in names if name in by_stem]
    return ImageSource(str(folder), _states(paths), read)


class _Element:
    """An element of an XML file."""

    def __init__(self, tag: str, line: int) -> None:
        self.tag, self.line, self.text, self.children = tag, line, "", list["_Element"]()

    def all(self, tag: str) -> "list[_Element]":
        """Return the children with a tag."""
        return [child for child in self.children if child.tag == tag]

    def value(self, *tags: str) -> str:
        """Return the text of a descendant, given the tags on the way to it; "" if there is none."""
        element = self
        for tag in tags:
            element = next(iter(element.all(tag)), _Element(tag, self.line))
        return element.text.strip()


def _xml(path: Path) -> _Element:
    """Return the root of an XML file, whose elements know their lines. ValueError if it is none."""
    with path.open("rb") as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST:,} bytes")
    root = _Element("", 0)
    open_elements = [root]
    parser = expat.ParserCreate()

    def start(tag: str, attributes: Mapping[str, str]) -> None:
        element = _Element(tag, parser.CurrentLineNumber)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def text(characters: str) -> None:
        open_elements[-1].text += characters

    def declared(*_: object) -> None:
        raise ValueError("it declares entities, which files of VOC have not")

    parser.StartElementHandler, parser.CharacterDataHandler = start, text
    parser.EndElementHandler, parser.EntityDeclHandler = lambda _: open_elements.pop(), declared
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from error
    return root.children[0]


def _voc_boxes(path: Path, name: str, form: BoxForm, report: Report) -> GivenBoxes | None:
    """Return the boxes of an XML file; None, and a bad line, if it cannot be read."""
    try:
        root = _xml(path)
    except OSError as error:
        report.bad("missing file", str(path), f"cannot be read: {error.strerror or error}")
        return None
    except ValueError as error:
        report.bad("not XML", str(path), f"expected XML as of Pascal VOC: {error}")
        return None
    boxes = []
    for element in root.all("object"):
        where, label = f"{path}:{element.line}", element.value("name")
        if not label:
            report.bad("no label", where, "expected an object with a name")
            continue
        numbers = [_number(element.value("bndbox", side)) for side in ("xmin", "ymin", "xmax", "ymax")]
        boxes.append(GivenBox(numbers, label, where, element.value("difficult") == "1"))
    height, width = (_number(root.value("size", side)) for side in ("height", "width"))
    size = None  # many programs write 0
    if isinstance(height, float) and isinstance(width, float) and height >= 1 and width >= 1:
        size = int(height), int(width)
    return GivenBoxes(boxes, form, name, size)


def _number(text: str) -> float | str:
    """Return a text as a number; as it is, if it is none."""
    try:
        return float(text)
    except ValueError:
        return text


def open_yolo(corpus: YoloCorpus, role: Role, key: str) -> ImageSource:
    """Open a folder of images with text files of YOLO."""
    folder = _folder(corpus.yolo, f"{key}.yolo")
    labels = _labels_folder(folder) if corpus.labels is None else _folder(corpus.labels, f"{key}.labels")
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not images:
        raise DataError(f"{key}.yolo: expected images in {folder}, and there is none")
    if isinstance(corpus.classes, str):
        file = existing(corpus.classes, f"{key}.classes")
        classes, state = _classes(file), [file]
    else:
        classes, state = dict(enumerate(corpus.classes)), []
    texts = [(labels / path.relative_to(folder)).with_suffix(".txt") for path in images]
    if not any(path.is_file() for path in texts):
        raise DataError(
            f"{key}.labels: expected .txt files for the images of {folder} in {labels}: none is there"
        )

    def read(report: Report) -> Iterator[ImageRow]:
        with ImageFiles() as files:
            for image, text in zip(images, texts, strict=True):
                boxes = list(_yolo_boxes(text, classes, report)) if text.is_file() else []
                given = GivenBoxes(boxes, BoxForm("cxcywh", shares=True), image.stem)
                yield from loaded(files, ImagePath(None, str(image)), [], str(image), report, given)

    return ImageSource(str(folder), _states([*state, *images, *texts]), read)


def _yolo_boxes(path: Path, classes: Mapping[int, str], report: Report) -> Iterator[GivenBox]:
    for number, line in enumerate(lines(path), 1):
        where = f"{path}:{number}"
        text = decoded(line, where, report)
        if text is None or not (fields := text.split()):
            continue
        if len(fields) != 5:
            message = f"expected class, centre and size, 5 numbers; got {len(fields)}"
            report.bad("wrong number of columns", where, message)
        elif not fields[0].isdecimal() or int(fields[0]) not in classes:
            message = f"the class is {fields[0][:40]}: expected one of {len(classes)}, from 0"
            report.bad("unknown label", where, message)
        else:
            yield GivenBox([_number(field) for field in fields[1:]], classes[int(fields[0])], where)


def _labels_folder(images: Path) -> Path:
    """Return a folder's path with `labels` in the place of its last `images`."""
    parts = list(images.parts)
    if "images" not in parts:
        return images
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _classes(path: Path) -> dict[int, str]:
    """Return the names of classes by number, of a file of YOLO. DataError if it has none."""
    if path.suffix.lower() not in (".yaml", ".yml"):
        return dict(enumerate(_names(path)))
    try:
        content = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: expected YAML: {error}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(number, int) for number in names):
        raise DataError(f"{path}: expected names, a list, or a name for each number")
    return {number: str(name) for number, name in names.items()}


def _names(path: Path) -> list[str]:
    """Return the first words of the lines of a text file: what follows in a line of ImageSets is left out."""
    found = []
    for number, line in enumerate(lines(path), 1):
        text = decoded(line, f"{path}:{number}", Report())
        found.append((text or "").strip())
    while found and not found[-1]:
        found.pop()
    return found


def _folder(name: str, key: str) -> Path:
    """Return the path of a folder. DataError if there is none."""
    if not Path(name).is_dir():
        raise DataError(f"{key}: no such folder: {name}")
    return Path(name)


def _states(paths: list[Path]) -> list[Any]:
    return [file_state(path) if path.is_file() else [str(path)] for path in paths]
