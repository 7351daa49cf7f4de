"""Recipes: a YAML file becomes one frozen tree; all faults at once, each with key, line and a suggestion."""

from seq2attn.recipe.attention import AttentionRecipe, CopyingRecipe
from seq2attn.recipe.data import (
    FORMATS,
    AnyCorpus,
    DataRecipe,
    DatasetCorpus,
    FilesCorpus,
    FilterRecipe,
    SampleCorpus,
    TableCorpus,
    TaskCorpus,
    TruncateRecipe,
    WindowRecipe,
)
from seq2attn.recipe.decoding import DecodingRecipe
from seq2attn.recipe.image_data import (
    AnyImages,
    FolderCorpus,
    IdxCorpus,
    ImageDataRecipe,
    ImageDataset,
    ImageSample,
    ImageTable,
)
from seq2attn.recipe.labelled_data import (
    AnyLabelled,
    ColumnsCorpus,
    LabelledDataRecipe,
    LabelledDataset,
    LabelledTable,
    LanguagesSample,
    TaggedDataRecipe,
    WordsRecipe,
)
from seq2attn.recipe.reading import LocatedFault, RecipeError, assignments, head, read, schema, shipped, write
from seq2attn.recipe.registry import RECIPES
from seq2attn.recipe.root import AnyRecipe
from seq2attn.recipe.roots import (
    ClassificationRecipe,
    LabellingRecipe,
    Recipe,
    TaggingRecipe,
)
from seq2attn.recipe.sections import Fault, Part, Section
from seq2attn.recipe.seq2seq_model import (
    ModelRecipe,
    RecurrentDecoderRecipe,
    RecurrentEncoderRecipe,
    TransformerDecoderRecipe,
    TransformerEncoderRecipe,
)
from seq2attn.recipe.tagger_model import ClassifierRecipe, TaggerRecipe
from seq2attn.recipe.text import SamplingRecipe, TextRecipe
from seq2attn.recipe.training import AnyLearningRecipe, LearningRecipe, TrainingRecipe

__all__ = [
    "FORMATS",
    "RECIPES",
    "AnyCorpus",
    "AnyImages",
    "AnyLabelled",
    "AnyLearningRecipe",
    "AnyRecipe",
    "AttentionRecipe",
    "ClassificationRecipe",
    "ClassifierRecipe",
    "ColumnsCorpus",
    "CopyingRecipe",
    "DataRecipe",
    "DatasetCorpus",
    "DecodingRecipe",
    "Fault",
    "FilesCorpus",
    "FilterRecipe",
    "FolderCorpus",
    "IdxCorpus",
    "ImageDataRecipe",
    "ImageDataset",
    "ImageSample",
    "ImageTable",
    "LabelledDataRecipe",
    "LabelledDataset",
    "LabelledTable",
    "LabellingRecipe",
    "LanguagesSample",
    "LearningRecipe",
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
    "TaggedDataRecipe",
    "TaggerRecipe",
    "TaggingRecipe",
    "TaskCorpus",
    "TextRecipe",
    "TrainingRecipe",
    "TransformerDecoderRecipe",
    "TransformerEncoderRecipe",
    "TruncateRecipe",
    "WindowRecipe",
    "WordsRecipe",
    "assignments",
    "head",
    "read",
    "schema",
    "shipped",
    "write",
]
