"""Zero-shot classification over HTTP is that of the library."""

import numpy as np
import pytest
from pictures_for_requests import data_uri, png
from starlette.testclient import TestClient
from tiny_model import preprocessing

from diptych.evaluation.classify import classify
from diptych.evaluation.labels import labels_from
from diptych.models.clip import CLIP

LABELS = ["a heart", "a star", "a very long river"]


@pytest.mark.parametrize("templates", [["{}"], ["a photo of {}.", "a drawing of {}", "{}"]])
def test_probabilities_are_those_of_the_library(
    client: TestClient, served_clip: CLIP, templates: list[str]
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
            assert np.allclose(found, [one[name] for one in theirs["predictions"]], atol=2e-5)  # type: ignore[literal-required]
        assert ours["none_of_these"] is None


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
        ({"labels": ["a", "a"]}, 400, "labels: 2, of which 1 differ"),
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
