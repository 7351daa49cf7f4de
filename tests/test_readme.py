"""What the README shows is what happens: its commands and its Python are run as they stand."""

import gzip
import json
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from click.testing import CliRunner
from PIL import Image

from seq2attn.cli import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
STEPS = ["training.max_steps=2", "training.max_epochs=null", "training.validate_every=2"]
FEW = ["data.train.limit=300", "data.dev.limit=20", "data.test.limit=20"]
SHORT = ["training.schedule=constant", "decoding.max_length=5"]
SMALL = {  # what keeps the README's trainings short
    "quickstart": [*STEPS, *FEW, *SHORT, "text.size=400", "--run", "runs/new"],
    "samsum_pointer": [
        *STEPS,
        *SHORT,
        "decoding.min_length=1",
        "text.model=char",
        "text.byte_fallback=false",
    ],
    "conll2003_pooling": STEPS,
    "languages": [*STEPS, *FEW],
    "digits": [*STEPS, *FEW],
    "flickr8k_show_attend_tell": [
        *STEPS,
        *SHORT,
        "data.size=16",
        "text.size=40",
        "model.encoder.backbone={kind: convolutional, sizes: [4, 4]}",
        "model.decoder.size=8",
        "training.precision=fp32",
    ],
}
CHAT = {"source": "Amanda: I baked cookies.\r\nJerry: Sure!", "target": "Amanda baked cookies for Jerry."}
NAMES = "Jerry NNP I-NP I-PER\nlives VBZ I-VP O\nin IN I-PP O\nRome NNP I-NP I-LOC\n\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """What the README types, without what it says of it."""
    return re.findall(r"^\$ (.*?)(?:\s+#.*)?$", "\n".join(blocks("console")), re.MULTILINE)


def say(line: str, more: Sequence[str] = ()) -> None:
    """Run a line of the README that has our command at its end."""
    echo, _, command = line.rpartition("| ")
    words = [Path("chat.txt").read_text() if "$(cat" in word else word for word in shlex.split(command)[1:]]
    given = " ".join(shlex.split(echo)[1:])
    result = CliRunner().invoke(cli, [*words, *more], input=given or None, catch_exceptions=False)
    assert result.exit_code == 0, (line, result.output)
    assert result.output.strip() or "tag" in words, line  # two steps find no name


def write_photos(folder: Path) -> None:
    """Write the tables and the archive of Flickr8k, with two photos."""
    folder.mkdir()
    with tarfile.open(folder / "images.tar", "w") as archive:
        for name in ("a.jpg", "b.jpg"):
            Image.new("RGB", (16, 16)).save(folder / name)
            archive.add(folder / name, name)
    rows = [json.dumps({"image": name, "captions": ["a dog", "a dog runs"]}) for name in ("a.jpg", "b.jpg")]
    for role in ("train", "dev"):
        (folder / f"{role}.jsonl").write_text("".join(f"{row}\n" for row in rows))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a small trained run where the README has its own, and those that it trains."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(tiny_runs.MODEL, folder / "runs" / "quickstart")
    Image.new("L", (28, 28)).save(folder / "seven.jpg")
    Image.new("RGB", (16, 16)).save(folder / "dog.jpg")
    write_photos(folder / "flickr8k_1000")
    for name, text in (("samsum/{}.jsonl.gz", json.dumps(CHAT) + "\n"), ("conll2003/eng.{}.gz", NAMES)):
        for split in ("train", "dev" if "samsum" in name else "testa"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name.format(split)).write_bytes(gzip.compress(text.encode() * 8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQ2ATTN_DATA", str(folder))
        patch.chdir(folder)
        for line in commands():
            if line.startswith("printf"):
                subprocess.run(line, shell=True, check=True)
            elif "seq2attn train" in line:
                say(line, SMALL[line.split()[2]])
        yield folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    for picture in trained.glob("*.png"):
        picture.unlink()
    return trained


def test_python(here: Path) -> None:
    names: dict[str, object] = {}
    for example in blocks("python"):
        exec(compile(example, "README.md", "exec"), names)  # noqa: S102 - the project's own README
        assert all(map(str, names.values()))
    pictures = {path.name: path.stat().st_size for path in here.glob("*.png")}
    assert pictures.keys() == {"hunger.png", "cookies.png", "hamburg.png"}
    assert all(size > 1000 for size in pictures.values())


def test_python_of_the_page_on_looking(here: Path) -> None:
    names: dict[str, object] = {}
    text = (ROOT / "docs" / "look.md").read_text(encoding="utf-8")
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(example, "look.md", "exec"), names)  # noqa: S102 - the project's own documents
    assert (here / "page.html").stat().st_size > 60_000 < (here / "hunger.html").stat().st_size


def test_commands(here: Path) -> None:
    lines = [line for line in commands() if "seq2attn " in line and not line.startswith("pip")]
    assert len(lines) >= 16
    for line in lines:
        if "mine.yaml" not in line and " train " not in line:  # a fault to imagine; those of the fixture
            say(line)
    assert {path.stem for path in here.glob("*.png")} == {"hunger", "cookies", "hamburg", "station", "dog"}


def test_the_recipe_is_one(tmp_path: Path) -> None:
    from seq2attn.recipe import read

    (example,) = blocks("yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(example, encoding="utf-8")
    assert read(path).name == "mine"


@pytest.mark.parametrize("page", ["tasks", "data"])
def test_recipes_of_the_documents_are_some(page: str, tmp_path: Path) -> None:
    """Whole ones as they stand; lines of the section data one by one, in a recipe of their task."""
    from seq2attn.recipe import read

    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    labelled = text.partition("## Labelled data")[2].partition("\n## ")[0]
    end = "training: {max_steps: 1}"
    whole = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "task: " in block[:6]]
    for corpus in re.findall(r"^train: (.*?)(?:\s+#.*)?$", labelled, re.MULTILINE):
        task = "classification" if "sample" in corpus or "tsv" in corpus else "tagging"
        whole.append(f"task: {task}\ndata: {{train: {corpus}, dev: {corpus}}}\n{end}\n")
    assert len(whole) >= 3
    for recipe in whole:
        (tmp_path / "r.yaml").write_text(recipe, encoding="utf-8")
        assert read(tmp_path / "r.yaml", check_files=False).task in recipe


def test_recipes_of_the_page_on_python_can_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that needs no other library; `train` reads its arguments, and ends there."""
    import seq2attn
    from seq2attn.runs.recipe_argument import recipe_of

    trained = []

    def train(recipe: Any, run: object = None, overrides: Any = (), *, data: Any = None) -> None:
        trained.append(recipe_of(recipe, overrides, data).name)

    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    examples = text.partition("## Recipes as dicts")[2].partition("## Callbacks")[0]
    monkeypatch.setattr(seq2attn, "train", train, raising=False)
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("train", "dev"):
        Path(f"{name}.tsv").write_text("a b\tc d\n", encoding="utf-8")
    names: dict[str, object] = {"seq2attn": seq2attn}
    for example in re.findall(r"```python\n(.*?)```", examples, re.DOTALL):
        exec(compile(example, "python.md", "exec"), names)  # noqa: S102 - the project's own documents
    assert trained == ["mine", "mine", "recipe"]


def test_the_recipe_for_data_of_ones_own_leaves_out_what_follows_from_them(tmp_path: Path) -> None:
    from seq2attn.recipe import read

    (example,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "how_much_data.md").read_text("utf-8"), re.S
    )
    (tmp_path / "mine.yaml").write_text(example, encoding="utf-8")
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_text("Ja.\tYes.\n", encoding="utf-8")
    recipe = read(tmp_path / "mine.yaml")
    assert recipe.text.size is recipe.training.validate_every is recipe.decoding.max_length_ratio is None
    assert recipe.training.schedule.options["warmup"] is None


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
            assert (page.parent / target).exists(), (page, target)
