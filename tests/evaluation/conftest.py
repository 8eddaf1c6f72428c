import pytest
from tiny_model import preprocessing, random_clip

from diptych.data.images.transforms import Preprocess
from diptych.models.clip import CLIP


@pytest.fixture(scope="session")
def tiny_clip() -> CLIP:
    return random_clip()


@pytest.fixture(scope="session")
def tiny_preprocess() -> Preprocess:
    return preprocessing()
