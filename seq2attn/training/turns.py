"""Turns of an update: who is trained by which loss, where a model has several players.

Most objectives have one loss, and an update moves all parameters. In a generative adversarial network two
players are trained against each other: an update has a turn for each, in which only its parameters move.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import nn

from seq2attn.training.objectives import Losses, Objective

ALL = ""  # the player that is the whole model


class Turn(NamedTuple):
    """A part of an update: whose parameters move, and by which loss."""

    player: str  # the name of a submodule of the model; ALL: the whole model
    forward: Callable[[Any, Any], Any]  # see Objective
    loss: Callable[[Any, Any], Losses]  # see Objective


class TurnTaking(ABC):
    """The base class of objectives of several players. `forward` and `loss`, as of any Objective, are those
    that validation reports."""

    players: ClassVar[tuple[str, ...]]  # names of submodules, each with an optimizer of its own
    averaged: ClassVar[str]  # the player whose moving average is kept, if the recipe has one

    @abstractmethod
    def turns(self, step: int) -> Sequence[Turn]:
        """Return the turns of an update, in their order; steps count from 1. A player may not have its turn
        in every update."""


def turns_of(objective: Objective, step: int) -> Sequence[Turn]:
    """Return the turns of an update; by default one, of the whole model."""
    if isinstance(objective, TurnTaking):
        return objective.turns(step)
    return [Turn(ALL, objective.forward, objective.loss)]


def players_of(objective: Objective) -> tuple[str, ...]:
    """Return the names of all players of an objective."""
    return objective.players if isinstance(objective, TurnTaking) else (ALL,)


def averaged_of(objective: Objective) -> str:
    """Return the player whose moving average is kept."""
    return objective.averaged if isinstance(objective, TurnTaking) else ALL


@contextlib.contextmanager
def only(model: nn.Module, player: str) -> Iterator[nn.Module]:
    """Yield the part of a model that has its turn; the others get no gradients meanwhile."""
    part = model.get_submodule(player)
    own = {id(parameter) for parameter in part.parameters()}
    others = [one for one in model.parameters() if id(one) not in own and one.requires_grad]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield part
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
