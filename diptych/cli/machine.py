"""The model of `--model`, on the device and in the precision that `auto` means here; what was chosen is said."""

from diptych.cli.output import say
from diptych.data.images.transforms import Preprocess
from diptych.hardware import pick_device, pick_precision
from diptych.models.image_model import ImageModel
from diptych.pretrained import Precision, full_name, load


def load_model(
    name: str, device: str, precision: str, activation: str | None = None
) -> tuple[str, ImageModel, Preprocess]:
    """Load the model of `--model` as `--device` and `--precision` say; return its full name first.

    The folder of a run stands for the model in it. A path becomes absolute, and keeps the activation that is stated
    for it, so that an index remembers both.
    """
    chosen_device, chosen_precision = choose(device, precision)
    named = full_name(name, activation)
    model, preprocess = load(named, chosen_device, precision=chosen_precision)
    return named, model, preprocess


def choose(device: str, precision: str) -> tuple[str, Precision]:
    """Return the device and precision to run in, and say on stderr what `auto` became."""
    chosen_device = pick_device(device)
    chosen_precision = pick_precision(precision, chosen_device)
    if "auto" in (device, precision):
        say(f"computing on {chosen_device} in {chosen_precision}")
    return chosen_device, chosen_precision
