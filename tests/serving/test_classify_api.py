"""Zero-shot classification over HTTP is that of the library."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from diptych.data.images.decoding import Pixels, read_rgb
from diptych.data.sources.opening import open_source
from diptych.evaluation.zero_shot.class_labels import labels_from
from diptych.evaluation.zero_shot.own_labels import classify, classify_own
from diptych.models.architectures import Classifier
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.search.building.build import refresh
from diptych.search.encoder import Encoder
from diptych.search.image_index import Index
from diptych.serving.app import create_app
from diptych.serving.server import build_service
from diptych.serving.server_settings import Settings
from tests.memory_store import MemoryDatabase
from tests.serving.pictures_for_requests import data_uri, png
from tests.tiny_model import preprocessing

LABELS = ["a heart", "a star", "a very long river"]


@pytest.mark.parametrize("templates", [["{}"], ["a photo of {}.", "a drawing of {}", "{}"]])
def test_probabilities_are_those_of_the_library(
    client: TestClient, served_clip: ImageModel, templates: list[str]
) -> None:
    files = [png((200, 0, 0)), png((0, 0, 200))]
    body = {"images": [data_uri(file) for file in files], "labels": LABELS, "templates": templates}
    answer = client.post("/v1/classify", json=body)
    assert answer.status_code == 200, answer.text
    expected = classify(
        served_clip, preprocessing(), files, labels_from(",".join(LABELS)), templates=templates
    )
    for ours, theirs in zip(answer.json()["results"], expected, strict=True):
        assert [one["label"] for one in ours["predictions"]] == [
            one["label"] for one in theirs["predictions"]
        ]
        for name in ("probability", "similarity"):
            found = [one[name] for one in ours["predictions"]]
            assert np.allclose(found, [one[name] for one in theirs["predictions"]], atol=2e-5)
        assert ours["none_of_these"] is None


@pytest.mark.parametrize("reads", ["embedding", "features"])
@pytest.mark.parametrize("several", [False, True])
def test_without_labels_the_classes_are_those_that_the_model_learned(
    served_clip: ImageModel, reads: Literal["embedding", "features"], several: bool
) -> None:
    size = Classifier(classes=("cat", "dog", "fox"), reads=reads, several=several)
    model = build_model(replace(served_clip.architecture, classifier=size)).eval()
    model.load_state_dict(served_clip.state_dict(), strict=False)
    assert model.classifier is not None
    torch.manual_seed(0)
    torch.nn.init.normal_(model.classifier.weight)
    files = [png((200, 0, 0)), png((0, 0, 200))]
    expected = classify_own(model, preprocessing(), files)
    with client_of(model) as client:
        answer = client.post("/v1/classify", json={"images": [data_uri(file) for file in files]})
        assert answer.status_code == 200, answer.text
        body = {"images": [data_uri(files[0])], "labels": LABELS}
        assert client.post("/v1/classify", json=body).status_code == 200
    for ours, theirs in zip(answer.json()["results"], expected, strict=True):
        for one, other in zip(ours["predictions"], theirs["predictions"], strict=True):
            assert one == pytest.approx(other, abs=2e-5)
        total = sum(one["probability"] for one in ours["predictions"])
        assert (total == pytest.approx(1)) != several


def client_of(model: ImageModel) -> TestClient:
    database = MemoryDatabase()
    refresh(database, open_source("sample:test"), Encoder(model, preprocessing(), "tiny"))
    service = build_service(
        Index(database, freshness=0), model, preprocessing(), "tiny", Settings(), decode=decode_here
    )
    return TestClient(create_app(service, service.settings), base_url="http://127.0.0.1:8000")


async def decode_here(data: bytes) -> Pixels:
    return read_rgb(data)


def test_a_model_without_classes_of_its_own_asks_for_labels(client: TestClient) -> None:
    answer = client.post("/v1/classify", json={"images": [data_uri(png())]})
    assert answer.status_code == 400
    assert "send labels to choose from" in answer.json()["detail"]
    for more in ({"threshold": 0.2}, {"templates": ["{}"]}):
        answer = client.post("/v1/classify", json={"images": [data_uri(png())], **more})
        assert (answer.status_code, "found without labels" in answer.json()["detail"]) == (400, True)


def test_the_best_are_kept_and_a_threshold_says_none_of_these(client: TestClient) -> None:
    body = {"images": [data_uri(png())], "labels": LABELS, "top": 1, "threshold": 1.0}
    (result,) = client.post("/v1/classify", json=body).json()["results"]
    assert len(result["predictions"]) == 1
    assert result["none_of_these"] is True


def test_the_shape_of_hugging_face_gives_the_same(client: TestClient) -> None:
    template = "This is a photo of {}."
    ours = client.post(
        "/v1/classify", json={"images": [data_uri(png())], "labels": LABELS, "templates": [template]}
    ).json()["results"][0]["predictions"]
    theirs = client.post(
        "/v1/huggingface/zero-shot-image-classification",
        json={"inputs": data_uri(png()).partition(",")[2], "parameters": {"candidate_labels": LABELS}},
    )
    assert theirs.status_code == 200, theirs.text
    assert theirs.json() == [{"label": one["label"], "score": one["probability"]} for one in ours]


@pytest.mark.parametrize(
    ("change", "status", "detail"),
    [
        ({"labels": ["a", "a"]}, 400, "labels: found 2, 1 of them different"),
        (
            {"labels": [f"label {number}" for number in range(200)], "templates": ["{}", "a {}"]},
            400,
            "400 prompts",
        ),
        ({"labels": ["one"]}, 422, "body.labels"),
        ({"templates": ["no place"]}, 422, "body.templates.0"),
        ({"images": []}, 422, "body.images"),
        ({"images": ["AAAA"]}, 400, "not an image"),
    ],
)
def test_what_cannot_be_classified_is_refused_with_the_reason(
    client: TestClient, change: dict[str, object], status: int, detail: str
) -> None:
    body = {"images": [data_uri(png())], "labels": LABELS, **change}
    answer = client.post("/v1/classify", json=body)
    assert answer.status_code == status
    assert detail in answer.json()["detail"]
