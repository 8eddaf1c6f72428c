"""Prompt templates: `{}` stands for the name of a class.

`imagenet` and `imagenet-7` are the published sets of OpenAI's notebook
`Prompt_Engineering_for_ImageNet.ipynb` (MIT licence, Copyright (c) 2021 OpenAI): the 80 that CLIP's ImageNet
figures were measured with, and the seven that forward selection kept.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych import config
from diptych.data.example import valid_unicode
from diptych.errors import DataError, SettingsError
from diptych.evaluation.zero_shot.word_files import read_json, read_lines
from diptych.models.image_model import ImageModel
from diptych.pretrained import available_models, model_of_run, name_of
from diptych.weights.formats import is_own_model
from diptych.weights.naming import DEFAULT_MODEL, split_name

TEMPLATES: dict[str, tuple[str, ...]] = {
    "plain": ("{}",),
    "photo": ("a photo of a {}.",),
    "drawings": (
        "{}",
        "{} emoji",
        "an icon of {}",
        "a drawing of {}",
        "clip art of {}",
    ),
    "imagenet-7": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "imagenet": (
        "a bad photo of a {}.",
        "a photo of many {}.",
        "a sculpture of a {}.",
        "a photo of the hard to see {}.",
        "a low resolution photo of the {}.",
        "a rendering of a {}.",
        "graffiti of a {}.",
        "a bad photo of the {}.",
        "a cropped photo of the {}.",
        "a tattoo of a {}.",
        "the embroidered {}.",
        "a photo of a hard to see {}.",
        "a bright photo of a {}.",
        "a photo of a clean {}.",
        "a photo of a dirty {}.",
        "a dark photo of the {}.",
        "a drawing of a {}.",
        "a photo of my {}.",
        "the plastic {}.",
        "a photo of the cool {}.",
        "a close-up photo of a {}.",
        "a black and white photo of the {}.",
        "a painting of the {}.",
        "a painting of a {}.",
        "a pixelated photo of the {}.",
        "a sculpture of the {}.",
        "a bright photo of the {}.",
        "a cropped photo of a {}.",
        "a plastic {}.",
        "a photo of the dirty {}.",
        "a jpeg corrupted photo of a {}.",
        "a blurry photo of the {}.",
        "a photo of the {}.",
        "a good photo of the {}.",
        "a rendering of the {}.",
        "a {} in a video game.",
        "a photo of one {}.",
        "a doodle of a {}.",
        "a close-up photo of the {}.",
        "a photo of a {}.",
        "the origami {}.",
        "the {} in a video game.",
        "a sketch of a {}.",
        "a doodle of the {}.",
        "a origami {}.",
        "a low resolution photo of a {}.",
        "the toy {}.",
        "a rendition of the {}.",
        "a photo of the clean {}.",
        "a photo of a large {}.",
        "a rendition of a {}.",
        "a photo of a nice {}.",
        "a photo of a weird {}.",
        "a blurry photo of a {}.",
        "a cartoon {}.",
        "art of a {}.",
        "a sketch of the {}.",
        "a embroidered {}.",
        "a pixelated photo of a {}.",
        "itap of the {}.",
        "a jpeg corrupted photo of the {}.",
        "a good photo of a {}.",
        "a plushie {}.",
        "a photo of the nice {}.",
        "a photo of the small {}.",
        "a photo of the weird {}.",
        "the cartoon {}.",
        "art of the {}.",
        "a drawing of the {}.",
        "a photo of the large {}.",
        "a black and white photo of a {}.",
        "the plushie {}.",
        "a dark photo of a {}.",
        "itap of a {}.",
        "graffiti of the {}.",
        "a toy {}.",
        "itap of my {}.",
        "a photo of a cool {}.",
        "a photo of a small {}.",
        "a tattoo of the {}.",
    ),
}


@dataclass(frozen=True)
class _TemplateFile:
    """The form of TOML, and of JSON with the same fields."""

    templates: tuple[str, ...]


def templates_named(name: str) -> tuple[str, ...]:
    """Return the template set `name`, or a single template written out: anything with `{}` in it, or those of a file.

    Raises:
        SettingsError: it is none of these; the message names the nearest set. DataError: there is no such file.
    """
    if "{}" in name:
        return (name,)
    if name in TEMPLATES:
        return TEMPLATES[name]
    if name.lower().endswith((".txt", ".toml", ".json")) or os.sep in name or Path(name).is_file():
        return read_templates(name)
    hint = config.nearest(name, TEMPLATES)
    raise SettingsError(
        f"templates {name!r}: {hint}; or write one such as 'a photo of a {{}}.', or name a .txt, .toml or .json "
        "file of them"
    )


def read_templates(path: str | Path) -> tuple[str, ...]:
    """Read templates from a file: text with one a line, a JSON list, or `templates` of a TOML or JSON label file.

    Raises:
        DataError: the file is missing. SettingsError: it holds something else, or nothing.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(
            f"{file}: no such template file; expected text, one template a line, or TOML or JSON with `templates`"
        )
    suffix = file.suffix.lower()
    if suffix not in (".toml", ".json"):
        return check_templates(read_lines(file), str(file))
    content = config.read_toml(file) if suffix == ".toml" else read_json(file)
    values = {"templates": content} if isinstance(content, list) else content
    if not isinstance(values, dict):
        raise SettingsError(f"{file}: a JSON {type(values).__name__}; expected a list of templates")
    values.pop("labels", None)
    return check_templates(config.build(_TemplateFile, values, str(file)).templates, str(file))


def check_templates(templates: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the templates, checked: each has a place for the name.

    Raises:
        SettingsError: there is none, or one has no `{}`.
    """
    if not templates:
        raise SettingsError(f"{where}: no templates; expected at least one, such as 'a photo of a {{}}.'")
    for template in templates:
        if "{}" not in template:
            raise SettingsError(f"{where}: the template {template!r} has no {{}} where the name goes")
    return tuple(templates)


def fill(template: str, name: str) -> str:
    """Return the template with every `{}` replaced by `name`, whose own braces mean nothing.

    A name may be that of a class folder whose bytes are not UTF-8: those become U+FFFD.
    """
    return template.replace("{}", valid_unicode(name))


def templates_for(model_name: str) -> tuple[str, ...]:
    """Return the templates that suit a model: the bare label for Diptych's own, whose captions were names, else a
    sentence.

    One model has the same templates, whether it is named by its folder, its run or a file.
    """
    place, _ = split_name(model_name)
    path = model_of_run(Path(place))
    named = place in available_models()
    ours = place == DEFAULT_MODEL if named else path.exists() and is_own_model(path)
    return TEMPLATES["plain" if ours else "photo"]


def suitable_templates(model: ImageModel) -> tuple[str, ...]:
    """Return `templates_for` the name that a model was loaded by; the bare label for a model that was not loaded."""
    name = name_of(model)
    return TEMPLATES["plain"] if name is None else templates_for(name)
