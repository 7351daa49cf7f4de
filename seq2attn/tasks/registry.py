"""TASKS: the registry of tasks, by their names in recipes."""

from typing import Any

from seq2attn.registry import Registry
from seq2attn.tasks.detection import DetectionTask
from seq2attn.tasks.image_generation import ImageGenerationTask
from seq2attn.tasks.image_tasks import ImageClassificationTask
from seq2attn.tasks.image_to_text import ImageToTextTask
from seq2attn.tasks.labelling_tasks import ClassificationTask, TaggingTask
from seq2attn.tasks.segmentation import SegmentationTask
from seq2attn.tasks.sequence_tasks import SummarizationTask, TranslationTask
from seq2attn.tasks.task import Task

TASKS: Registry[type[Task[Any]]] = Registry("TASKS", Task)
TASKS |= {
    "translation": TranslationTask,
    "summarization": SummarizationTask,
    "tagging": TaggingTask,
    "classification": ClassificationTask,
    "image_classification": ImageClassificationTask,
    "image_to_text": ImageToTextTask,
    "detection": DetectionTask,
    "segmentation": SegmentationTask,
    "image_generation": ImageGenerationTask,
}
