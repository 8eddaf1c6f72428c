import pytest

from diptych.data.images.transforms import Preprocess
from diptych.models.image_model import ImageModel
from tests.tiny_model import preprocessing, random_clip


@pytest.fixture(scope="session")
def tiny_clip() -> ImageModel:
    return random_clip()


@pytest.fixture(scope="session")
def tiny_preprocess() -> Preprocess:
    return preprocessing()
