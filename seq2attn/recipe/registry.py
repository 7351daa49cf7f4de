"""RECIPES: the registry of recipes, by task."""

from seq2attn.recipe.image_generation import ImageGenerationRecipe
from seq2attn.recipe.roots import (
    AnyRecipe,
    ClassificationRecipe,
    ImageClassificationRecipe,
    ImageToTextRecipe,
    Recipe,
    SummaryRecipe,
    TaggingRecipe,
)

RECIPES: dict[str, type[AnyRecipe]] = {
    "translation": Recipe,
    "summarization": SummaryRecipe,
    "tagging": TaggingRecipe,
    "classification": ClassificationRecipe,
    "image_classification": ImageClassificationRecipe,
    "image_to_text": ImageToTextRecipe,
    "image_generation": ImageGenerationRecipe,
}
