"""The base class of the recipes of all tasks."""

import unicodedata
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from typing_extensions import Self

from seq2attn.recipe.markers import OneOrMore, PathField
from seq2attn.recipe.sections import Fault, Section
from seq2attn.recipe.wording import shown

TASK = "Task that the model is trained for."
LEARNING = "Optimizer, batches, validation and checkpoints."


class InitRecipe(Section):
    """A training that starts from the best weights of another run. Tensors are taken by their names; all
    others start at random, and `check` lists them."""

    # A run that is resumed does not need it any more: training says so if it is missing.
    run: Annotated[str, PathField("folder", required=False)] = Field(
        min_length=1, description="Folder of the run, or its name on the hub: hf://user/name[@revision]."
    )
    vocabulary: Literal["keep", "match"] = Field(
        "keep",
        description="keep: the vocabulary is that of the run; match: it is that of this recipe. A piece that "
        "both have keeps its row of the embeddings; another gets the mean of the rows of its pieces there.",
    )
    take: Annotated[list[str], OneOrMore()] = Field(
        ["*"],
        description="Tensors or parts that are taken, by names or patterns: [encoder, decoder.layers.*].",
    )
    freeze: Annotated[list[str], OneOrMore()] = Field(
        [],
        description="Tensors or parts that are not trained, likewise: [encoder.embedding, '*.norm']. Those "
        "after a ! are, whatever the others say: ['*', '!decoder.shift_head'].",
    )


class RunAlone:
    """Marks a section that may also be given as its `run`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.section, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler(schema)]}

    def section(self, value: Any) -> Any:
        """Return a text as the section with that run."""
        return {"run": value} if isinstance(value, str) else value


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
    init: Annotated[InitRecipe | None, RunAlone(), PathField("folder", required=False)] = Field(
        None,
        description="Another run that training starts from: its folder, or a section. null = random weights.",
    )
    origin: OriginRecipe | None = Field(
        None, description="Where imported weights come from; written by `import`, and never asked for."
    )
    data: Any = Field(description="Corpora of training, validation and test.")
    text: Any = Field(None, description="Vocabulary.")
    model: Any = Field(description="Network.")
    training: Any = Field(description=LEARNING)

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_runs(cls, value: Any) -> Any:
        """Read recipes of runs that were made when `init` had another name."""
        if isinstance(value, dict) and "init_from" in value and "init" not in value:
            return {("init" if key == "init_from" else key): inner for key, inner in value.items()}
        return value

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
