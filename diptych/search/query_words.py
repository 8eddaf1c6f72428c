"""Check the words of a query: a file name or an address would be searched for as words."""

import os
import re

from diptych.data.example import IMAGE_SUFFIXES
from diptych.data.images.decoding import format_of
from diptych.errors import SettingsError


def names_an_image(text: str) -> bool:
    """Return whether a text is the path of an existing file that begins like an image."""
    if not os.path.isfile(text):
        return False
    try:
        with open(text, "rb") as file:
            return format_of(file.read(256)) is not None
    except OSError:
        return False


def check_words(text: str, *, as_image: str, as_words: str) -> None:
    """Refuse an address or the name of an image file as words.

    as_image, as_words: the advice of messages for an image, with `{}` for its file, and for words that look like one.

    Raises:
        SettingsError: the words are an address, an image file, or end like the name of one.
    """
    if re.match(r"https?://\S+$", text):
        raise SettingsError(
            f"{text}: is an address, and Diptych does not download images; download it and give "
            f"{as_image.format('FILE')}, or use {as_words} for words"
        )
    if names_an_image(text):
        raise SettingsError(f"{text}: is an image file; expected words; give {as_image.format(text)}")
    suffix = os.path.splitext(text)[1].lower().removeprefix(".")
    if suffix in IMAGE_SUFFIXES and not re.search(r"\s", text):
        raise SettingsError(
            f"{text}: no such image file; expected words, or an image; check the path, or use {as_words} for words"
        )
