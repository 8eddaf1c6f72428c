"""The client that people have already: openai, against a real server."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import openai
import pytest

from diptych.embed.encode import embed_texts
from diptych.models.image_model import ImageModel
from diptych.serving.guard.tokens import Scope, Tokens
from diptych.serving.server_settings import Settings
from diptych.serving.service import Service
from tests.serving.pictures_for_requests import data_uri, png

READ = "r" * 40


def test_openai_gets_the_librarys_vectors(served: str, served_clip: ImageModel) -> None:
    texts = ["a red heart", "a star"]
    with openai.OpenAI(base_url=f"{served}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        # Without a format the client asks for base64, and decodes it.
        answer = client.embeddings.create(model="tiny", input=texts)
        assert np.allclose([one.embedding for one in answer.data], embed_texts(served_clip, texts), atol=2e-6)
        floats = client.embeddings.create(
            model="tiny", input="a star", encoding_format="float", dimensions=24
        )
        assert np.allclose(floats.data[0].embedding, answer.data[1].embedding, atol=2e-6)
        raw = client.embeddings.create(model="tiny", input="a star", encoding_format="base64")
        assert np.frombuffer(base64.b64decode(str(raw.data[0].embedding)), "<f4").shape == (24,)
        picture = client.embeddings.create(
            model="tiny", input=data_uri(png()), extra_body={"modality": "image"}
        )
        assert len(picture.data[0].embedding) == 24


def test_openai_understands_why_it_is_refused(served: str) -> None:
    with openai.OpenAI(base_url=f"{served}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="dimensions: found 12; expected 24"):
            client.embeddings.create(model="tiny", input="a", dimensions=12)
        with pytest.raises(openai.UnprocessableEntityError, match=r"body\.input"):
            client.embeddings.create(model="tiny", input=[])


def test_openai_sends_its_key_as_the_token(
    make_service: Callable[..., Service], serve: Callable[..., Any]
) -> None:
    service = make_service(Settings(tokens=Tokens([(Scope.READ, READ)])))
    with serve(service) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key=READ, max_retries=0) as client:
            assert len(client.embeddings.create(model="tiny", input="a").data) == 1
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.embeddings.create(model="tiny", input="a")
