"""/v1/embeddings and /v1/models: OpenAI's shape, with pictures."""

import base64
import json
from collections.abc import Callable

import numpy as np
import pytest
from starlette.testclient import TestClient

from diptych.embed.encode import embed_images, embed_texts
from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.serving.api import image_inputs
from diptych.serving.app import create_app
from diptych.serving.server_settings import Settings
from diptych.serving.service import Service
from tests.serving.pictures_for_requests import data_uri, png


def vectors(client: TestClient, **body: object) -> np.ndarray:
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [one["index"] for one in data] == list(range(len(data)))
    return np.array([one["embedding"] for one in data], np.float32)


def test_texts_are_those_of_the_library(client: TestClient, served_clip: ImageModel) -> None:
    texts = ["a red heart", "a star"]
    assert np.allclose(vectors(client, input=texts), embed_texts(served_clip, texts), atol=2e-6)
    assert np.allclose(vectors(client, input=texts[0]), embed_texts(served_clip, texts[:1]), atol=2e-6)


def test_pictures_are_those_of_the_library_in_every_spelling(
    client: TestClient, served_clip: ImageModel, service: Service
) -> None:
    expected = embed_images(served_clip, service.towers._preprocess, [png()])
    uri = data_uri(png())
    assert np.allclose(vectors(client, input=[{"image": uri}]), expected, atol=2e-6)
    assert np.allclose(vectors(client, input=uri, modality="image"), expected, atol=2e-6)
    assert np.allclose(vectors(client, input=[uri.partition(",")[2]], modality="image"), expected, atol=2e-6)


def test_texts_and_pictures_keep_their_places(client: TestClient) -> None:
    uri = data_uri(png())
    mixed = vectors(client, input=["a star", {"image": uri}, {"text": "a heart"}])
    assert np.allclose(mixed[0], vectors(client, input="a star")[0], atol=2e-6)
    assert np.allclose(mixed[1], vectors(client, input=[{"image": uri}])[0], atol=2e-6)
    assert np.allclose(mixed[2], vectors(client, input="a heart")[0], atol=2e-6)


def test_base64_is_little_endian_float32(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", json={"input": "a star", "encoding_format": "base64"}).json()
    (one,) = answer["data"]
    decoded = np.frombuffer(base64.b64decode(one["embedding"]), "<f4")
    assert np.array_equal(decoded, vectors(client, input="a star")[0])


def test_the_model_is_listed_and_may_be_named(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["dimensions"]) == ("tiny", 24)
    assert len(vectors(client, input="a star", model="tiny", dimensions=24, user="somebody")) == 1


def test_a_text_that_is_too_long_is_cut_only_when_asked(client: TestClient) -> None:
    long = "word " * 100
    refused = client.post("/v1/embeddings", json={"input": long})
    assert refused.status_code == 400
    assert "102 tokens" in refused.json()["detail"]
    assert len(vectors(client, input=long, truncate=True)) == 1


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"input": "a", "dimensions": 12}, 400, "dimensions: found 12; expected 24"),
        ({"input": "a", "model": "other"}, 400, "model: 'other' is not served here; expected 'tiny'"),
        ({"input": "x" * 5000}, 400, "text of 5,000 characters"),
        ({"input": [{"image": "data:image/png,plain"}]}, 400, "input.0: begins with 'data:image/png'"),
        ({"input": [{"image": "%%%"}]}, 400, "input.0: not valid base64"),
        ({"input": [{"image": "aGVsbG8="}]}, 400, "not an image"),
        ({"input": [{"image": "https://example.org/a.png"}]}, 403, "--allow-url-fetch"),
        ({"input": [3]}, 422, "body.input.0: found 3; Input should be a text"),
        ({"input": [[3, 4]]}, 422, "token ids are not supported"),
        ({"input": []}, 422, "body.input: found []"),
        ({"input": ["a"] * 65}, 422, "body.input"),
        ({"input": "a", "encoding_format": "hex"}, 422, "body.encoding_format: found 'hex'"),
        ({"input": "a", "dimension": 24}, 422, "body.dimension"),
        ({}, 422, "body.input: found {}; Field required"),
    ],
)
def test_what_cannot_be_embedded_is_refused_with_the_reason(
    client: TestClient, body: dict[str, object], status: int, detail: str
) -> None:
    answer = client.post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert detail in answer.json()["detail"]
    assert answer.json()["status"] == status


def test_text_that_is_no_unicode_is_refused(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/embeddings", content=rb'{"input": "\ud800"}', headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "body.input"


def test_a_picture_is_fetched_only_where_that_is_allowed(
    make_service: Callable[..., Service], client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    async def fetch(url: str) -> bytes:
        fetched.append(url)
        return png()

    monkeypatch.setattr(image_inputs, "fetch", fetch)
    body = {"input": ["https://example.org/a.png"], "modality": "image"}
    assert client.post("/v1/embeddings", json=body).status_code == 403
    assert fetched == []
    settings = Settings(allow_url_fetch=True)
    with TestClient(create_app(make_service(settings), settings), base_url="http://127.0.0.1") as allowed:
        expected = vectors(client, input=[{"image": data_uri(png())}])
        assert np.allclose(vectors(allowed, **body), expected, atol=2e-6)
    assert fetched == ["https://example.org/a.png"]


def test_a_body_that_is_too_large_is_refused_announced_or_not(make_service: Callable[..., Service]) -> None:
    settings = Settings(body_bytes=1000)
    large = json.dumps({"input": "x" * 2000}).encode()
    headers = {"content-type": "application/json"}
    with TestClient(create_app(make_service(settings), settings), base_url="http://127.0.0.1") as client:
        for content in (
            large,
            iter([large[:900], large[900:]]),
        ):  # an iterator is sent in chunks, without a length
            answer = client.post("/v1/embeddings", content=content, headers=headers)
            assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
        assert client.post("/v1/embeddings", json={"input": "x"}).status_code == 200


def test_settings_under_which_a_request_could_never_be_answered_are_refused() -> None:
    with pytest.raises(SettingsError, match="would always be refused"):
        Settings(text_queue=100)
