"""/v1/search and /v1/items/{id}/similar give what the library gives."""

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from diptych.models.image_model import ImageModel
from diptych.search.encoder import Encoder
from diptych.search.query import QueryPart, Question
from diptych.search.searcher import Searcher
from diptych.serving.service import Service
from tests.serving.pictures_for_requests import data_uri, png
from tests.tiny_model import preprocessing


@pytest.fixture
def searcher(service: Service, served_clip: ImageModel) -> Searcher:
    return Searcher(service.index, Encoder(served_clip, preprocessing(), "tiny"))


def search(client: TestClient, query: object, **options: object) -> dict[str, Any]:
    answer = client.post("/v1/search", json={"query": query, **options})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [one["id"] for one in answer["results"]]


def test_words_find_what_the_library_finds(client: TestClient, searcher: Searcher) -> None:
    expected = searcher.search(Question((QueryPart("a red heart"),), count=7)).found
    found = search(client, "a red heart", limit=7)
    assert ids(found) == [one.item.id for one in expected]
    assert np.allclose([one["score"] for one in found["results"]], [one.score for one in expected], atol=1e-5)
    first, item = found["results"][0], expected[0].item
    assert (first["uri"], first["caption"], first["tags"]) == (item.uri, item.caption, list(item.tags))
    assert first["thumbnail"].startswith(f"/v1/items/{item.id}/thumbnail?v=")


def test_parts_are_weighted_and_may_be_words_pictures_and_ids(client: TestClient, searcher: Searcher) -> None:
    id_ = ids(search(client, "a star"))[0]
    parts = (
        QueryPart("a heart", weight=2.0),
        QueryPart(image=png(), weight=-0.5),
        QueryPart(id=id_, weight=0.7),
    )
    expected = searcher.search(Question(parts)).found
    found = search(
        client,
        [
            {"text": "a heart", "weight": 2},
            {"image": data_uri(png()), "weight": -0.5},
            {"id": id_, "weight": 0.7},
        ],
    )
    assert ids(found) == [one.item.id for one in expected]
    assert id_ not in ids(found)


def test_pages_join_without_gaps(client: TestClient) -> None:
    whole = search(client, "a red heart", limit=60)
    assert whole["next_offset"] is None
    pages, offset = [], 0
    while offset is not None:
        page = search(client, "a red heart", limit=25, offset=offset)
        pages += ids(page)
        offset = page["next_offset"]
    assert pages == ids(whole)
    assert len(set(pages)) == 60


def test_filter_threshold_grouping_diversity_and_exactness_reach_the_library(
    client: TestClient, searcher: Searcher
) -> None:
    options = {
        "filter": 'caption contains "a"',
        "min_score": -0.9,
        "unique": True,
        "diversity": 0.4,
        "exact": True,
    }
    question = Question(
        (QueryPart("a star"),),
        filter='caption contains "a"',
        min_score=-0.9,
        group_duplicates=True,
        diversity=0.4,
        exact=True,
        count=20,
    )
    expected = searcher.search(question).found
    found = search(client, "a star", limit=20, **options)
    assert ids(found) == [one.item.id for one in expected]
    assert [[same["id"] for same in one["duplicates"]] for one in found["results"]] == [
        [item.id for item in one.duplicates] for one in expected
    ]
    assert search(client, "a star", min_score=1.0)["results"] == []


def test_similar_is_a_search_by_id(client: TestClient) -> None:
    id_ = ids(search(client, "a star"))[0]
    answer = client.get(f"/v1/items/{id_}/similar", params={"limit": 5, "filter": "width > 10"})
    assert answer.status_code == 200
    assert ids(answer.json()) == ids(search(client, [{"id": id_}], limit=5))


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (
            {"query": [{"text": "a", "id": "0" * 32}]},
            400,
            "query.0: part of a query: expected exactly one",
        ),
        ({"query": [{"text": "a"}, {}]}, 400, "query.1: part of a query: expected exactly one"),
        ({"query": [{"text": "a", "weight": 0}]}, 400, "query.0: part of a query: weight 0.0"),
        ({"query": [{"text": "a"}, {"text": "a", "weight": -1}]}, 400, "cancel each other"),
        ({"query": "  "}, 400, "the text is empty"),
        ({"query": "a", "filter": "widht > 3"}, 400, "did you mean 'width'?"),
        ({"query": [{"id": "0" * 32}]}, 404, "no image of the index has the id"),
        ({"query": [{"image": "AAAA"}]}, 400, "not an image"),
        ({"query": [{"id": "../../etc/passwd"}]}, 422, "body.query.0.id: found '../../etc/passwd'"),
        ({"query": 3}, 422, "body.query: found 3; Input should be a text, or a list of parts"),
        (
            {"query": "a", "limit": 201},
            422,
            "body.limit: found 201; Input should be less than or equal to 200",
        ),
        ({"query": "a", "limits": 5}, 422, "body.limits"),
        ({"query": "a", "offset": 10_000}, 422, "body.offset"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_with_the_reason(
    client: TestClient, body: dict[str, object], status: int, detail: str
) -> None:
    answer = client.post("/v1/search", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert detail in answer.json()["detail"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"query": NaN}', b"[" * 100_000, b"\xff"])
def test_bytes_that_are_no_question_are_refused(client: TestClient, content: bytes) -> None:
    answer = client.post("/v1/search", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_weight_that_is_no_number_is_refused(client: TestClient) -> None:
    content = b'{"query": [{"text": "a", "weight": NaN}]}'
    answer = client.post("/v1/search", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "body.query.0.weight: found nan" in answer.json()["detail"]
