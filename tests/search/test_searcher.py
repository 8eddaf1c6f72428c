"""Answers to questions, beside a loop over every picture."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from diptych.errors import SearchIndexError, SettingsError
from diptych.search.building.build import refresh
from diptych.search.building.removal import remove
from diptych.search.diversity import diversify
from diptych.search.duplicates import SAME, duplicate_groups
from diptych.search.image_index import Index
from diptych.search.query import Answer, Match, QueryPart, Question
from diptych.search.searcher import DIVERSIFIED, GROUPED, Searcher
from diptych.search.stores.filter_fields import condition
from diptych.search.stores.filter_syntax import parse
from diptych.search.stores.filters import matches
from diptych.search.stores.image_rows import Batch, Item
from tests.memory_store import MemoryDatabase
from tests.search.fake_encoder import DIM, Contained, FakeEncoder, FakeQuestions, vector_of

COUNT = 130


def filled(count: int) -> MemoryDatabase:
    """Pictures of which every third is nearly the same as the one before, and every tenth is in two files."""
    database = MemoryDatabase()
    pictures = {f"{number:04}": b"%d" % (number - (number % 10 == 9)) for number in range(count)}
    refresh(database, Contained("/x.tar", pictures), FakeEncoder(batch_size=500))
    store = database.open(database.names()[0])
    (batch,) = store.batches(chunk=count)
    order = sorted(range(count), key=lambda row: batch.items[row].uri)
    items, vectors = [batch.items[row] for row in order], batch.vectors[order].astype(np.float32)
    vectors[2::3] = vectors[1 : len(vectors[2::3]) * 3 : 3] + 0.02
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store.upsert(Batch(items, vectors.astype(np.float16)))
    return database


@pytest.fixture(scope="module")
def searcher() -> Searcher:
    return Searcher(Index(filled(COUNT)), FakeQuestions())


def everything(searcher: Searcher) -> tuple[list[Item], np.ndarray]:
    batch = searcher.index.get([item.id for item in searcher.index.items()])
    vectors = batch.vectors.astype(np.float32)
    return list(batch.items), vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_loop(searcher: Searcher, question: Question) -> list[tuple[str, float]]:
    """Ids and scores of the whole ranking, without grouping and diversity."""
    items, vectors = everything(searcher)
    total = np.zeros(DIM)
    for part in question.parts:
        if part.id is not None:
            (vector,) = (vectors[row] for row, item in enumerate(items) if item.id == part.id)
        else:
            data = part.text.encode() if part.text is not None else part.image
            assert isinstance(data, bytes)
            vector = vector_of(data)
        total += part.weight * vector
    total /= np.linalg.norm(total)
    found = []
    for item, vector in zip(items, vectors, strict=True):
        score = float(np.dot(vector, total))
        wanted = question.filter is None or matches(parse(question.filter), item.to_row())
        if wanted and item.id not in [part.id for part in question.parts]:
            found.append((item.id, score))
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))


def whole(searcher: Searcher, question: Question) -> Answer:
    return searcher.search(dataclasses.replace(question, count=COUNT, offset=0))


def uris(found: Sequence[Match]) -> list[str]:
    return [one.item.uri for one in found]


PARTS = st.one_of(
    st.builds(QueryPart, text=st.integers(0, 300).map(str), weight=st.floats(0.2, 3) | st.floats(-3, -0.2)),
    st.builds(
        QueryPart, image=st.integers(0, 300).map(lambda number: b"%d" % number), weight=st.floats(-3, -0.2)
    ),
)
QUESTIONS = st.builds(
    Question,
    parts=st.lists(PARTS, min_size=1, max_size=4).map(tuple),
    filter=st.sampled_from([None, 'uri contains "#00"', "not width = 2", "width > 99"]),
    min_score=st.sampled_from([None, -0.2, 0.3]),
    group_duplicates=st.booleans(),
    diversity=st.sampled_from([0.0, 0.3, 1.0]),
)


def test_an_answer_equals_a_loop_over_every_picture(searcher: Searcher) -> None:
    known = [item.id for item in searcher.index.items()]
    questions = [
        Question((QueryPart(text="7"),)),
        Question((QueryPart(text="7"), QueryPart(image=b"8", weight=2.0), QueryPart(text="9", weight=-0.5))),
        Question((QueryPart(id=known[5]),)),
        Question((QueryPart(text="7"), QueryPart(id=known[5], weight=-0.3), QueryPart(id=known[6]))),
        Question((QueryPart(text="7", weight=-1.0),), filter='uri contains "#00"'),
    ]
    for question in questions:
        answer, expected = whole(searcher, question), by_loop(searcher, question)
        assert [one.score for one in answer.found] == pytest.approx(
            [score for _, score in expected], abs=1e-4
        )
        # Nearly equal scores may change places by rounding.
        assert dict.fromkeys(one.item.id for one in answer.found).keys() == dict(expected).keys()
        assert answer.found[0].item.id in [id_ for id_, score in expected if score > expected[0][1] - 1e-4]


@settings(
    deadline=None, max_examples=40, phases=(Phase.explicit, Phase.generate)
)  # to shrink would take minutes
@given(QUESTIONS, st.integers(20, 60))
def test_pages_put_together_are_the_whole_answer(searcher: Searcher, question: Question, size: int) -> None:
    try:
        expected = whole(searcher, question)
    except SettingsError:
        return  # the parts cancel each other
    pages: list[Match] = []
    for offset in range(0, COUNT + size, size):
        page = searcher.search(dataclasses.replace(question, count=size, offset=offset))
        pages += page.found
        assert page.more == (offset + size < len(expected.found))
        assert len(page.found) == max(0, min(size, len(expected.found) - offset))
    assert tuple(pages) == expected.found
    shown = [one.item.id for one in pages] + [same.id for one in pages for same in one.duplicates]
    assert len(shown) == len(set(shown))


def test_grouping_and_diversity_are_made_of_the_plain_answer(searcher: Searcher) -> None:
    question = Question((QueryPart(text="7"),), min_score=-0.5)
    plain = whole(searcher, question).found
    batch = searcher.index.get([one.item.id for one in plain])
    vectors = batch.vectors.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = duplicate_groups(vectors, [one.item.sha256 for one in plain])
    assert any(len(group) > 1 for group in expected)
    grouped = whole(searcher, dataclasses.replace(question, group_duplicates=True)).found
    assert [(one.item, one.duplicates) for one in grouped] == [
        (plain[first].item, tuple(plain[row].item for row in others)) for first, *others in expected
    ]
    scores = np.array([one.score for one in plain[:DIVERSIFIED]], np.float32)
    order = diversify(scores, vectors[:DIVERSIFIED], 0.4)
    diverse = whole(searcher, dataclasses.replace(question, diversity=0.4)).found
    assert list(diverse) == [*(plain[row] for row in order), *plain[DIVERSIFIED:]]


def test_no_two_results_are_duplicates_when_they_are_grouped(searcher: Searcher) -> None:
    found = whole(searcher, Question((QueryPart(text="7"),), group_duplicates=True)).found
    vectors = searcher.index.get([one.item.id for one in found]).vectors.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (vectors @ vectors.T - 2 * np.eye(len(found)) < SAME + 1e-5).all()
    assert len({one.item.sha256 for one in found}) == len(found)
    assert sum(1 + len(one.duplicates) for one in found) == COUNT


def test_grouped_results_end_with_the_best_five_hundred() -> None:
    searcher = Searcher(Index(filled(GROUPED + 60)), FakeQuestions())
    question = Question((QueryPart(text="7"),), count=GROUPED, group_duplicates=True)
    plain = searcher.search(dataclasses.replace(question, group_duplicates=False))
    grouped = searcher.search(question)
    assert plain.more
    assert not grouped.more
    looked_at = {one.item.id for one in grouped.found} | {
        same.id for one in grouped.found for same in one.duplicates
    }
    assert looked_at == {one.item.id for one in plain.found}


def test_a_picture_that_the_question_names_is_not_in_its_answer(searcher: Searcher) -> None:
    first, second = (item.id for item, _ in zip(searcher.index.items(), range(2), strict=False))
    answer = whole(searcher, Question((QueryPart(id=first), QueryPart(id=second, weight=-0.2))))
    assert len(answer.found) == COUNT - 2
    assert not {first, second} & {one.item.id for one in answer.found}


def test_a_least_score_comes_before_grouping_and_diversity(searcher: Searcher) -> None:
    question = Question((QueryPart(text="7"),), min_score=0.4, group_duplicates=True, diversity=0.7)
    found = whole(searcher, question).found
    plain = by_loop(searcher, question)
    shown = {one.item.id for one in found} | {same.id for one in found for same in one.duplicates}
    assert shown == {id_ for id_, score in plain if score >= 0.4}


def test_each_kind_of_part_is_embedded_in_one_call_and_ids_in_none() -> None:
    encoder = FakeQuestions()
    searcher = Searcher(Index(filled(30)), encoder)
    known = next(searcher.index.items()).id
    parts = (
        QueryPart(text="1"),
        QueryPart(image=b"2"),
        QueryPart(id=known),
        QueryPart(text="3", weight=-1.0),
        QueryPart(image=b"4"),
    )
    both = searcher.search(Question(parts))
    assert encoder.calls == [2, 2]
    given_vectors = np.array([vector_of(data) for data in (b"1", b"2", b"3", b"4")])
    assert searcher.answer(Question(parts), given_vectors).found == both.found
    assert searcher.answer(Question(parts), given_vectors).seconds_embedding == 0


def test_vectors_have_to_go_with_the_parts(searcher: Searcher) -> None:
    question = Question((QueryPart(text="1"), QueryPart(text="2")))
    for shape in ((1, DIM), (3, DIM), (2, DIM + 1)):
        with pytest.raises(ValueError, match=rf"expected \(2, {DIM}\)"):
            searcher.answer(question, np.ones(shape, np.float32))


def test_an_unknown_id_is_an_error_that_names_it(searcher: Searcher) -> None:
    with pytest.raises(SearchIndexError, match="no image has the id 'ffff'"):
        searcher.search(Question((QueryPart(text="1"), QueryPart(id="ffff", weight=-1.0))))


def test_another_model_is_refused(searcher: Searcher) -> None:
    other = FakeQuestions()
    other.fingerprint = "e" * 64
    with pytest.raises(SearchIndexError, match="was filled by the model"):
        Searcher(searcher.index, other)


def test_an_index_without_pictures_has_empty_answers() -> None:
    database = filled(6)
    remove(database, condition("uri", "starts", "/x.tar"))
    plain = Question((QueryPart(text="1"),))
    for question in (plain, dataclasses.replace(plain, group_duplicates=True, diversity=0.5)):
        answer = Searcher(Index(database), FakeQuestions()).search(question)
        assert (answer.found, answer.more) == ((), False)


def test_a_picture_that_goes_during_a_search_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = Searcher(Index(filled(30)), FakeQuestions())
    question = Question((QueryPart(text="7"),), count=30, group_duplicates=True)
    before = searcher.search(question).found
    gone = before[0].item.id
    true_get = searcher.index.get
    monkeypatch.setattr(searcher.index, "get", lambda ids: true_get([id_ for id_ in ids if id_ != gone]))
    after = searcher.search(question).found
    assert gone not in {one.item.id for one in after}
    assert uris(after)[-5:] == uris(before)[-5:]
