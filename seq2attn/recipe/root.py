"""The base class of the recipes of all tasks."""

import unicodedata
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import Self

from seq2attn.recipe.markers import PathField
from seq2attn.recipe.sections import Fault, Section
from seq2attn.recipe.wording import shown

TASK = "Task that the model is trained for."
LEARNING = "Optimizer, batches, validation and checkpoints."


class OriginRecipe(Section):
    """Where the weights of a run come from that another tool trained. `seq2attn import` writes it."""

    kind: Literal["marian"] = Field(description="The kind of model that was imported.")
    name: str = Field(description="Name of the model: its folder, or its name on the hub.")
    revision: str | None = Field(None, description="Commit on the hub; null = a local folder.")
    sha256: str = Field(description="Checksum of the file of weights that was read.")
    license: str | None = Field(None, description="Licence that the model names; null = it names none.")


class AnyRecipe(Section):
    """The base class of recipes. A subclass narrows the sections to those of its task; RECIPES names it."""

    name: str = Field("unnamed", min_length=1, description="Name of the run; by default the file's name.")
    task: str = Field(description=TASK)
    seed: int = Field(1, ge=0, le=2**32 - 1, description="Random seed of the run.")
    # A run that is resumed does not need it any more: training says so if it is missing.
    init_from: Annotated[str, PathField("folder", required=False)] | None = Field(
        None,
        description="Folder of a run whose best weights training starts from, by the names of tensors; "
        "null = random weights.",
    )
    origin: OriginRecipe | None = Field(
        None, description="Where imported weights come from; written by `import`, and never asked for."
    )
    data: Any = Field(description="Corpora of training, validation and test.")
    text: Any = Field(None, description="Vocabulary.")
    model: Any = Field(description="Network.")
    training: Any = Field(description=LEARNING)

    @property
    def attention_path(self) -> str | None:
        """The key of the attention that comparisons vary; None if there is none."""
        return None

    @property
    def blocks_path(self) -> str | None:
        """The key of the attention blocks that comparisons vary; None if the network has no place for any."""
        return None

    def fitted_as(self, begun: "AnyRecipe") -> Self:
        """Return this recipe with the settings of a run's recipe that it leaves to the training data."""
        return self.model_copy(update={"training": self.training.fitted_as(begun.training)})

    def faults(self) -> Iterator[Fault]:
        """Find a name that cannot be that of a folder."""
        if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in self.name):
            yield Fault(
                "name", f"names a folder: no line breaks or control characters, got {shown(self.name)}"
            )
        if any(letter in self.name for letter in "/\\"):
            yield Fault("name", f"names a folder of its own: no slashes, got {shown(self.name)}")
