"""A task: vocabulary, batches, model, loss and predictor of one kind of problem."""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from seq2attn.data import Coders, Examples, Role, prepare
from seq2attn.data.batches import AnyBatchLoader
from seq2attn.inference.recognizer import Categorizer, Recognizer
from seq2attn.inference.translator import Translator
from seq2attn.recipe import (
    AnyRecipe,
)
from seq2attn.training.objectives import Objective

R = TypeVar("R", bound=AnyRecipe)


AnyPredictor = Translator | Recognizer | Categorizer


class Task(ABC, Generic[R]):
    """What a recipe's `task` means. Made by `learn` for a new run, or by `reopen` for one that is there."""

    recipe: R
    counted: str  # what its examples are

    @property
    @abstractmethod
    def vocabulary(self) -> str:
        """What is known of words and labels, in a line."""

    @property
    @abstractmethod
    def coders(self) -> Coders:
        """What makes ids of sources and targets."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """The vocabularies, by the names of their files in a run's folder."""

    @abstractmethod
    def loader(self, examples: Examples, training: bool = False) -> AnyBatchLoader:
        """Examples as batches; for training, as the recipe changes them at random."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The model, freshly initialised. Seed torch before."""

    def empty(self) -> nn.Module:
        """A model that is about to be given weights."""
        return self.build()

    @abstractmethod
    def objective(self, model: Any, training: bool = False) -> Objective:
        """What the model is measured by; for training, with all that it learns by besides."""

    @abstractmethod
    def predictor(
        self, model: Any, device: torch.device, precision: str = "fp32", validating: bool = False
    ) -> AnyPredictor:
        """The model as people use it; while validating, as fast as the recipe allows."""

    def examples(self, role: Role) -> Examples:
        """The tokenised examples of train, dev or test."""
        data = self.recipe.data
        corpora = data.train if role == "train" else [getattr(data, role)]
        return prepare(corpora, data, self.coders, role, words=self.recipe.text.words)
