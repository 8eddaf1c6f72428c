"""Where a model meets an objective: one file an approach, and the table by which a recipe names them."""

from diptych.training.approaches.captioning import CaptioningTask
from diptych.training.approaches.classifier import ClassifierTask
from diptych.training.approaches.clip_distillation import ClipDistillationTask
from diptych.training.approaches.contrastive import ClipTask
from diptych.training.approaches.convirt import ConvirtTask
from diptych.training.approaches.image_views import PictureTask
from diptych.training.approaches.label_distillation import LabelDistillationTask
from diptych.training.approaches.language import ClipLanguageTask, LanguageTask
from diptych.training.approaches.lit import LitTask
from diptych.training.approaches.shre import ShreTask
from diptych.training.approaches.siglip import SiglipTask
from diptych.training.approaches.simclr import SimclrTask
from diptych.training.approaches.supervised import LabelsTask
from diptych.training.approaches.word_prediction import WordPredictionTask

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
