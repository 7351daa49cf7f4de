"""RECIPES: the registry of recipes, by task."""

from seq2attn.recipe.detection import DetectionRecipe
from seq2attn.recipe.image_generation import ImageGenerationRecipe
from seq2attn.recipe.root import AnyRecipe
from seq2attn.recipe.roots import (
    ClassificationRecipe,
    ImageClassificationRecipe,
    ImageToTextRecipe,
    Recipe,
    SummaryRecipe,
    TaggingRecipe,
)
from seq2attn.recipe.segmentation import SegmentationRecipe

RECIPES: dict[str, type[AnyRecipe]] = {
    "translation": Recipe,
    "summarization": SummaryRecipe,
    "tagging": TaggingRecipe,
    "classification": ClassificationRecipe,
    "image_classification": ImageClassificationRecipe,
    "image_to_text": ImageToTextRecipe,
    "detection": DetectionRecipe,
    "segmentation": SegmentationRecipe,
    "image_generation": ImageGenerationRecipe,
}
