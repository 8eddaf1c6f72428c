"""Where a model meets an objective: one file an approach, and the table by which a recipe names them."""

from diptych.training.tasks.captioning import CaptioningTask
from diptych.training.tasks.classifier import ClassifierTask
from diptych.training.tasks.clip import ClipTask
from diptych.training.tasks.clip_distillation import ClipDistillationTask
from diptych.training.tasks.convirt import ConvirtTask
from diptych.training.tasks.label_distillation import LabelDistillationTask
from diptych.training.tasks.labels import LabelsTask
from diptych.training.tasks.language import ClipLanguageTask, LanguageTask
from diptych.training.tasks.lit import LitTask
from diptych.training.tasks.pictures import PictureTask
from diptych.training.tasks.shre import ShreTask
from diptych.training.tasks.siglip import SiglipTask
from diptych.training.tasks.simclr import SimclrTask
from diptych.training.tasks.word_prediction import WordPredictionTask

__all__ = ["TASKS"]

TASKS: dict[str, type[PictureTask]] = {
    "clip": ClipTask,
    "siglip": SiglipTask,
    "clip-language": ClipLanguageTask,
    "language": LanguageTask,
    "shre": ShreTask,
    "captioning": CaptioningTask,
    "word-prediction": WordPredictionTask,
    "simclr": SimclrTask,
    "labels": LabelsTask,
    "label-distillation": LabelDistillationTask,
    "convirt": ConvirtTask,
    "clip-distillation": ClipDistillationTask,
    "classifier": ClassifierTask,
    "lit": LitTask,
}
