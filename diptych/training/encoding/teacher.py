"""A trained model whose answers another one learns."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.pretrained import load


class Teacher:
    """Frozen and in evaluation mode, on the device of its student and beside what is trained and saved.

    place: what `[objective] teacher` says. objective: for the message where it says nothing.
    """

    def __init__(self, place: str | None, objective: str, student: ImageModel) -> None:
        if place is None:
            raise SettingsError(
                f'[objective] {objective} needs a teacher; set teacher = "ViT-B/32", or the folder of a trained model'
            )
        self.place = place
        model, preprocess = load(place, device="cpu")
        # In evaluation mode its batch norms use what they have seen in training, and not the student's batches.
        self.model = model.to(student.logit_scale).eval().requires_grad_(False)
        self._resolution = preprocess.resolution
        device = student.device
        self._mean = torch.tensor(preprocess.mean, device=device)[:, None, None]
        self._std = torch.tensor(preprocess.std, device=device)[:, None, None]

    def pixels(self, view: Tensor) -> Tensor:
        """Return what the student sees, in the teacher's size and normalisation: (rows, 3, n, n).

        view: (rows, 3, m, m), augmented, in 0..1.
        """
        size = (self._resolution, self._resolution)
        if view.shape[2:] != size:
            view = F.interpolate(view, size=size, mode="bicubic", antialias=True).clamp_(0, 1)
        return ((view - self._mean) / self._std).to(self.model.dtype)
