"""Tests that take an image tower or a text tower run once for each kind."""

import pytest

from tests.models.small_models import IMAGE_TOWERS, TEXT_TOWERS


@pytest.fixture(params=[*IMAGE_TOWERS])
def image_tower(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[*TEXT_TOWERS])
def text_tower(request: pytest.FixtureRequest) -> str:
    return str(request.param)
