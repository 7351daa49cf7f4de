"""Run Eole: its `train`, and the engine of its `predict`."""

from typing import Any

import eole
import torch
import yaml
from eole.bin.run.train import train as own_train
from eole.config.run import PredictConfig, TrainConfig
from eole.inference_engine import InferenceEnginePY
from eole.trainer import Trainer
from measuring import Clocks, Job, run


def configuration(job: Job, **changes: Any) -> TrainConfig:
    """Return the configuration, as `eole train -config` reads it."""
    torch.set_num_threads(job.threads)
    tree = yaml.safe_load((job.path / "eole.yaml").read_text())
    tree["training"].update(changes)
    return TrainConfig(**tree)


def train(job: Job) -> None:
    """Run its training, with our clocks between the updates."""
    clocks, own = Clocks(job, eole, torch), Trainer._train_step

    def step(trainer: Any, batches: list[dict[str, Any]], *given: Any, **named: Any) -> None:
        own(trainer, batches, *given, **named)
        padding = trainer.train_loss.padding_idx
        clocks.updated(sum(int((batch["tgt"][:, 1:] != padding).sum()) for batch in batches))

    Trainer._train_step = step
    own_train(configuration(job))


def decode(job: Job) -> None:
    """Translate with the weights after one update."""
    path = job.path / "eole"
    if not any(path.glob("*.safetensors")):
        own_train(configuration(job, train_steps=1))
    torch.set_num_threads(job.threads)
    engine = InferenceEnginePY(
        PredictConfig(
            model_path=str(path),
            src="none",
            world_size=0,
            gpu_ranks=[],
            beam_size=job.beam,
            batch_size=job.batch,
            batch_type="sents",
            min_length=job.steps,
            max_length=job.steps,
            max_length_ratio=0,  # no limit by the source
        )
    )

    def translate(texts: list[str]) -> list[str]:
        return [hypotheses[0] for hypotheses in engine.infer_list(texts)[2]]

    Clocks(job, eole, torch).decoded(translate)


if __name__ == "__main__":
    run(train, decode)
