"""Run JoeyNMT: its `train`, and the `predict` of its `translate`."""

import functools
from typing import Any

import joeynmt
import sentencepiece
import torch
import yaml
from joeynmt import prediction, training
from joeynmt.config import parse_global_args
from joeynmt.data import load_data
from joeynmt.model import build_model
from measuring import Clocks, Job, run

# JoeyNMT 2.3 calls this method, which SentencePiece no longer has. The vocabulary has all pieces anyway.
sentencepiece.SentencePieceProcessor.SetVocabulary = lambda self, pieces: None


def configuration(job: Job) -> dict[str, Any]:
    """Return the configuration, as `python -m joeynmt` reads it."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(1)
    tree: dict[str, Any] = yaml.safe_load((job.path / f"joeynmt_{job.model}.yaml").read_text())
    tree["testing"].update(
        beam_size=job.beam, batch_size=job.batch, batch_type="sentence", max_output_length=job.steps
    )
    return tree


def train(job: Job) -> None:
    """Run its training, with our clocks between the updates."""
    clocks, own = Clocks(job, joeynmt, torch), training.TrainManager._train_step
    tokens: list[int] = []

    def step(manager: Any, batch: Any) -> Any:
        if tokens:  # only now is the update of the previous batch finished, and this batch made
            clocks.updated(tokens.pop())
        tokens.append(int(batch.ntokens))
        return own(manager, batch)

    training.TrainManager._train_step = step
    training.TrainManager._save_checkpoint = lambda *given: None
    training.train(rank=0, world_size=None, cfg=configuration(job), skip_test=True)


def decode(job: Job) -> None:
    """Translate with random weights. `predict` ignores min_output_length, so it is bound to the search."""
    prediction.search = functools.partial(prediction.search, min_output_length=job.steps)
    given = parse_global_args(configuration(job), rank=0, mode="translate")
    source, target, *_, data = load_data(cfg=given.data, datasets=["stream"])
    model = build_model(given.model, src_vocab=source, trg_vocab=target)

    def translate(texts: list[str]) -> list[str]:
        data.reset_cache()
        for text in texts:
            data.set_item(text)
        _, _, translations, *_ = prediction.predict(
            model, data, given.device, 0, normalization="none", args=given.test, autocast=given.autocast
        )
        return list(translations)

    Clocks(job, joeynmt, torch).decoded(translate)


if __name__ == "__main__":
    run(train, decode)
