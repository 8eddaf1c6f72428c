"""Check OpenAI's published files on this machine: `python scripts/verify_weights.py FOLDER`.

Every one of the nine that is in the folder has its SHA-256 checked, is loaded, and is compared with the published
number of parameters. With ViT-B/32 and the picture `CLIP.png` of the original repository in the folder, the
probabilities of that repository's README are checked too.
"""

import sys
from pathlib import Path

import torch
from PIL import Image

from diptych.atomic import sha256_of
from diptych.data.images.transforms import Preprocess
from diptych.errors import DiptychError
from diptych.models.architectures import PUBLISHED
from diptych.models.image_model import ImageModel
from diptych.tokenizer import tokenize
from diptych.weights.foreign.published import FILES
from diptych.weights.formats import load_path

# Parameters of the published models, counted in the original code.
PARAMETERS = {
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "RN50x16": 290_979_217,
    "RN50x64": 623_258_305,
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-L/14@336px": 427_944_193,
}

# From the README of github.com/openai/CLIP, computed there in float16 on a GPU.
EXAMPLE_PICTURE = "CLIP.png"
EXAMPLE_TEXTS = ("a diagram", "a dog", "a cat")
EXAMPLE_PROBABILITIES = (0.9927937, 0.00421068, 0.00299572)
_TOLERANCE = 0.002


def main(arguments: list[str]) -> int:
    """Print one line a file; 0 when all that is there is right, 1 when something is wrong or nothing is there."""
    if len(arguments) != 1:
        print("usage: python scripts/verify_weights.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    present = [name for name, file in FILES.items() if (folder / file.name).is_file()]
    wrong = 0
    for name, file in FILES.items():
        if name not in present:
            print(f"absent   {name:15} {file.name}")
            continue
        verdict = _problem(name, folder)
        print(f"{'wrong' if verdict else 'right':8} {name:15} {file.name} {verdict}".rstrip())
        wrong += bool(verdict)
    if not present:
        print(f"{folder}: holds none of the nine published files", file=sys.stderr)
        return 1
    return 1 if wrong else 0


def _problem(name: str, folder: Path) -> str:
    """What is wrong with one file, or nothing."""
    path = folder / FILES[name].name
    found = sha256_of(path)
    if found != FILES[name].sha256:
        return f"has the SHA-256 {found}, expected {FILES[name].sha256}"
    try:
        model, preprocess = load_path(path)
    except DiptychError as error:
        return str(error)
    if model.architecture != PUBLISHED[name]:
        return f"has the architecture {model.architecture}, expected {PUBLISHED[name]}"
    count = sum(parameter.numel() for parameter in model.parameters())
    if count != PARAMETERS[name]:
        return f"has {count} parameters, expected {PARAMETERS[name]}"
    picture = folder / EXAMPLE_PICTURE
    if name == "ViT-B/32" and picture.is_file():
        return _example_problem(model, preprocess, picture)
    return ""


@torch.inference_mode()
def _example_problem(model: ImageModel, preprocess: Preprocess, picture: Path) -> str:
    with Image.open(picture) as image:
        pixels = preprocess(image)[None]
    logits, _ = model(pixels, tokenize(list(EXAMPLE_TEXTS)))
    found = logits.softmax(dim=-1)[0].tolist()
    distance = max(abs(a - b) for a, b in zip(found, EXAMPLE_PROBABILITIES, strict=True))
    if distance > _TOLERANCE:
        return f"gives {picture.name} the probabilities {found}, expected {list(EXAMPLE_PROBABILITIES)}"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
