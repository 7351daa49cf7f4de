"""Runs on the hub: read by name wherever a run is read, copied, and uploaded with a card."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_runs
import yaml
from fake_hub import COMMIT, FakeHub
from tiny_cli import fails, run

import seq2attn
from seq2attn.pretrained.hub import HubName, fetched_run, pull
from seq2attn.runs.publishing import push
from seq2attn.runs.recipe_argument import recipe_of
from seq2attn.training.run_folder import RunError, RunFolder

MARIAN = Path(__file__).parent / "data" / "marian" / "joint"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.setenv("SEQ2ATTN_CACHE", str(tmp_path / "own"))
    return FakeHub(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf://a/b", ("a/b", None)),
        ("hf://a-b/c.d_e@main", ("a-b/c.d_e", "main")),
        ("hf://a/b@refs/pr/1", ("a/b", "refs/pr/1")),
    ],
)
def test_a_name_has_a_user_a_repository_and_perhaps_a_revision(
    text: str, name: tuple[str, str | None]
) -> None:
    assert HubName.parse(text) == name and str(HubName.parse(text)) == text


@pytest.mark.parametrize("text", ["hf://a", "hf://a/b/c", "hf://a/b@", "hf:///b", "hf://a b/c", "hf://a/b?x"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(RunError, match=r"expected hf://user/name\[@revision\], got"):
        HubName.parse(text)


def test_a_run_is_read_by_its_name(hub: FakeHub) -> None:
    hub.add("me/model", tiny_runs.MODEL)
    text = "Tom ist nicht hier."
    expected = seq2attn.load(tiny_runs.MODEL, device="cpu").translate(text).text
    assert seq2attn.load("hf://me/model", device="cpu").translate(text).text == expected
    assert run("translate", "hf://me/model@main", stdin=f"{text}\n").stdout == f"{expected}\n"
    assert hub.requests[-1] == ("me/model", "main")


def test_without_a_connection_it_is_read_from_the_cache(hub: FakeHub) -> None:
    hub.add("me/model", tiny_runs.MODEL)
    first = fetched_run("hf://me/model")
    hub.connected = False
    shutil.rmtree(hub.root)
    assert fetched_run("hf://me/model") == first
    assert seq2attn.load("hf://me/model", device="cpu").translate("Wo ist Tom?").text
    with pytest.raises(
        RunError, match="hf://me/other cannot be fetched, and is not in the cache: no connection"
    ):
        fetched_run("hf://me/other")


def test_a_marian_model_becomes_a_run_once(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("Helsinki-NLP/opus-mt-de-en", MARIAN)
    found = fetched_run("hf://Helsinki-NLP/opus-mt-de-en")
    origin = RunFolder.open(found).recipe.origin
    assert origin is not None
    assert (origin.name, origin.revision) == ("Helsinki-NLP/opus-mt-de-en", COMMIT)
    before = (found / "version.json").stat().st_mtime_ns
    assert fetched_run("hf://Helsinki-NLP/opus-mt-de-en") == found
    assert (found / "version.json").stat().st_mtime_ns == before
    run("import", "marian", "hf://Helsinki-NLP/opus-mt-de-en", "-o", str(tmp_path / "run"))
    assert RunFolder.open(tmp_path / "run").recipe == RunFolder.open(found).recipe


def test_a_recipe_starts_from_a_run_on_the_hub(hub: FakeHub) -> None:
    hub.add("me/model", tiny_runs.MODEL)
    sample = {"sample": "tatoeba_de_en", "limit": 20}
    data = {"languages": ["de", "en"], "train": sample, "dev": sample}
    recipe = recipe_of({"init": "hf://me/model", "data": data, "training": {"max_steps": 1}})
    assert recipe.init is not None and recipe.init.run == "hf://me/model"
    assert recipe.model == RunFolder.open(tiny_runs.MODEL).recipe.model


def test_pull_makes_a_folder_of_its_own(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("me/model", tiny_runs.MODEL)
    assert run("pull", "hf://me/model", "-o", str(tmp_path / "mine")).stdout == f"{tmp_path / 'mine'}\n"
    folder = RunFolder.open(tmp_path / "mine")
    assert folder.version == RunFolder.open(tiny_runs.MODEL).version
    assert not any(path.is_symlink() for path in (tmp_path / "mine").rglob("*"))
    folder.accept_recipe()  # it can be written to
    assert "exists and is not overwritten" in fails("pull", "hf://me/model", "-o", str(tmp_path / "mine"))[1]


# ---- what is refused ------------------------------------------------------------------------------------


def test_what_is_not_there_is_said(hub: FakeHub) -> None:
    assert "there is no such model on the hub" in fails("translate", "hf://me/model")[1]
    hub.add("me/model", tiny_runs.MODEL)
    assert "the hub has no revision old of it" in fails("translate", "hf://me/model@old")[1]


def test_another_kind_of_repository_is_refused_with_what_it_has(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("# Nothing", encoding="utf-8")
    (tmp_path / "other" / "model.py").write_text("1 / 0", encoding="utf-8")
    hub.add("me/other", tmp_path / "other")
    with pytest.raises(
        RunError, match=r"expected version.json or config.json; of what is read, it has README.md$"
    ):
        fetched_run("hf://me/other")


@pytest.mark.parametrize("name", ["weights/../../evil", "../evil", "text/a/b", "/etc/passwd"])
def test_names_that_lead_out_of_a_run_are_refused(hub: FakeHub, tmp_path: Path, name: str) -> None:
    folder = hub.add("me/model", tiny_runs.MODEL)
    version = json.loads((folder / "version.json").read_text(encoding="utf-8"))
    version.pop("checksum", None)
    version["checksums"][name] = "0" * 64
    (folder / "version.json").write_text(json.dumps(version), encoding="utf-8")
    with pytest.raises(RunError, match="damaged"):
        pull("hf://me/model", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_file_with_another_checksum_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    folder = hub.add("me/model", tiny_runs.MODEL)
    (folder / "text" / "source.model").write_bytes(b"other")
    with pytest.raises(RunError, match=r"source.model is damaged: its checksum"):
        pull("hf://me/model", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


# ---- push -----------------------------------------------------------------------------------------------


def test_what_is_pushed_is_a_run_with_a_card(hub: FakeHub, tmp_path: Path) -> None:
    pushed = push(tiny_runs.MODEL, "hf://me/new", "apache-2.0", private=True, score_on="dev")
    assert pushed == "hf://me/new" and hub.uploads == [{"repo_id": "me/new", "private": True}]
    folder = hub.root / "me" / "new"
    assert not (folder / "training_state.pt").exists() and not (folder / "log.jsonl").exists()
    before, after = RunFolder.open(tiny_runs.MODEL).version, RunFolder.open(folder).version
    assert after.best == before.best and after.environment == {} and after.log == (0, "")
    text = "Tom ist nicht hier."
    results = [seq2attn.load(name, device="cpu").translate(text).text for name in (tiny_runs.MODEL, pushed)]
    assert results[0] == results[1]
    _, head, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    keys = yaml.safe_load(head)
    assert keys["license"] == "apache-2.0" and keys["pipeline_tag"] == "translation"
    assert keys["language"] == ["de", "en"] and keys["library_name"] == "seq2attn"
    metrics = keys["model-index"][0]["results"][0]["metrics"]
    assert [metric["type"] for metric in metrics] == ["bleu", "chrf2", "ter"]
    assert all("version:" in metric["args"]["signature"] for metric in metrics)
    assert "seq2attn translate hf://me/new" in body and f"BLEU = {metrics[0]['value']:.1f}" in body


def test_the_licence_is_asked_and_never_guessed(hub: FakeHub) -> None:
    run("push", str(tiny_runs.MODEL), "hf://me/new", stdin="cc-by-4.0\n")
    card = (hub.root / "me" / "new" / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-4.0\n" in card and "model-index" not in card
    assert (
        "expected a licence as the hub names it"
        in fails("push", str(tiny_runs.MODEL), "hf://me/new", "--license", "do what you want")[1]
    )


def test_an_upload_that_fails_says_why(hub: FakeHub) -> None:
    hub.connected = False
    with pytest.raises(RunError, match=r"hf://me/new cannot be uploaded .*: no connection"):
        push(tiny_runs.MODEL, "hf://me/new", "mit")
    with pytest.raises(RunError, match="leave @main out"):
        push(tiny_runs.MODEL, "hf://me/new@main", "mit")
