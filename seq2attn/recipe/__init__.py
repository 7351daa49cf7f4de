"""A recipe: one YAML file -> one frozen tree; every fault at once, each with path, line and a guess."""

from seq2attn.recipe.data import (
    FORMATS,
    AnyCorpus,
    DataRecipe,
    DatasetCorpus,
    FilesCorpus,
    FilterRecipe,
    SampleCorpus,
    SamplingRecipe,
    TableCorpus,
    TaskCorpus,
    TextRecipe,
)
from seq2attn.recipe.model import (
    AttentionRecipe,
    ModelRecipe,
    RecurrentDecoderRecipe,
    RecurrentEncoderRecipe,
    TransformerDecoderRecipe,
    TransformerEncoderRecipe,
)
from seq2attn.recipe.parts import Fault, Part, Section
from seq2attn.recipe.reading import LocatedFault, Recipe, RecipeError, head, read, schema, shipped, write
from seq2attn.recipe.training import DecodingRecipe, TrainingRecipe

__all__ = [
    "FORMATS",
    "AnyCorpus",
    "AttentionRecipe",
    "DataRecipe",
    "DatasetCorpus",
    "DecodingRecipe",
    "Fault",
    "FilesCorpus",
    "FilterRecipe",
    "LocatedFault",
    "ModelRecipe",
    "Part",
    "Recipe",
    "RecipeError",
    "RecurrentDecoderRecipe",
    "RecurrentEncoderRecipe",
    "SampleCorpus",
    "SamplingRecipe",
    "Section",
    "TableCorpus",
    "TaskCorpus",
    "TextRecipe",
    "TrainingRecipe",
    "TransformerDecoderRecipe",
    "TransformerEncoderRecipe",
    "head",
    "read",
    "schema",
    "shipped",
    "write",
]
