"""The vocabularies of source and target: trained, read from files, or read from a run folder."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from seq2attn.data import training_text
from seq2attn.data.files import fetched
from seq2attn.recipe import Recipe, TextRecipe
from seq2attn.runtime.files import read
from seq2attn.tasks.task import read_part
from seq2attn.text.given_ids import FaultyIdsError, Numbering, dump_ids, read_ids
from seq2attn.text.vocabulary import Vocabulary, VocabularyError
from seq2attn.text.vocabulary_training import normalized, train_vocabulary, with_normalization
from seq2attn.training.run_folder import RunFolder


def learned_vocabularies(recipe: Recipe) -> list[Vocabulary]:
    """Return the vocabularies of source and target, or one of both: from the recipe's files, or trained."""
    text = recipe.text
    if text.files is not None:
        numberings = _numberings(text, [_ids_in(fetched(file, "text.ids")) for file in text.ids_files])
        files = text.files[:1] if text.one_model else text.files
        paths = [fetched(file, f"text.files.{side}") for side, file in enumerate(files)]
        both = zip(paths, numberings, strict=False)
        return [Vocabulary.load(path, text.words, numbering) for path, numbering in both]
    if text.joint:
        joint = _train(recipe, (0, 1), text.normalized[1])
        source = with_normalization(joint, lowercase=text.lowercase, nfkc=True)
        trained = [joint] if text.one_model else [source, joint]
    else:
        trained = [_train(recipe, (side,), text.normalized[side]) for side in (0, 1)]
    return [
        Vocabulary(vocabulary.model, text.words, numbering)
        for vocabulary, numbering in zip(trained, _numberings(text), strict=False)
    ]


def opened_vocabularies(recipe: Recipe, folder: RunFolder) -> list[Vocabulary]:
    """Return the vocabularies of a run. RunError, with the file's name, if one is damaged."""
    models, ids = recipe.text.names
    numberings = _numberings(recipe.text, [read_part(folder, name, read_ids) for name in ids])
    return [
        read_part(folder, name, partial(Vocabulary, words=recipe.text.words, numbering=numbering))
        for name, numbering in zip(models, numberings, strict=False)
    ]


def vocabulary_files(recipe: Recipe, vocabularies: Sequence[Vocabulary]) -> dict[str, bytes]:
    """Return the vocabularies by the names of their files in a run folder."""
    models, ids = recipe.text.names
    given = [vocabulary.numbering for vocabulary in vocabularies]
    maps = [numbering.ids for numbering in given if numbering is not None and numbering.ids is not None]
    return {
        **{name: vocabulary.model for name, vocabulary in zip(models, vocabularies, strict=True)},
        **{name: dump_ids(mapping) for name, mapping in zip(ids, maps, strict=False)},
    }


def _numberings(text: TextRecipe, ids: Sequence[Mapping[str, int]] = ()) -> list[Numbering]:
    """Return the ids and tags of source and target. Tags are pieces of the target where it is joint with the
    source, or where they are marked."""
    of_source, of_target = (ids[0], ids[-1]) if ids else (None, None)
    target_tags = text.tags if text.joint or text.tags == "marked" else ()
    return [Numbering(of_source, text.start, text.tags), Numbering(of_target, text.start, target_tags)]


def _ids_in(file: Path) -> dict[str, int]:
    """Return the ids of pieces in a file. VocabularyError, with the file's name, if they are none."""
    try:
        return read_ids(read(file))
    except OSError as error:
        raise VocabularyError(f"{file}: cannot be read: {error.strerror}") from error
    except FaultyIdsError as error:
        raise VocabularyError(f"{file}: {error}") from error


def _train(recipe: Recipe, sides: tuple[int, ...], nfkc: bool) -> Vocabulary:
    """Train the vocabulary of the source (0), the target (1), or both.

    nfkc: whether it normalises to NFKC itself. If only the source is to be normalised, a joint vocabulary
    does not, and is trained on sources that are normalised before.
    """
    text = recipe.text
    normalize = partial(normalized, lowercase=text.lowercase, nfkc=True)
    before = text.normalized[0] and not nfkc and 0 in sides
    try:
        return train_vocabulary(
            training_text(recipe.data, sides, normalize_source=normalize if before else iter),
            model=text.models[sides[0]],
            size=text.sizes[sides[0]],
            byte_fallback=text.byte_fallback,
            character_coverage=text.character_coverage,
            lowercase=text.lowercase,
            nfkc=nfkc,
            words=text.words,
            seed=recipe.seed,
        )
    except VocabularyError as error:
        side = "source and target" if len(sides) > 1 else ("source", "target")[sides[0]]
        raise VocabularyError(f"vocabulary of the {side}: {error}") from error
