"""The page that `diptych demo` writes: what was trained, measured, classified and found."""

import math
from collections.abc import Sequence

from diptych.reports.charts import Chart, Series, over_steps
from diptych.reports.page_parts import PageImage
from diptych.reports.render import render_page
from diptych.runs.demo_story import DemoAnswer, DemoImage, Story
from diptych.wording import four_digits, minutes


def page(story: Story) -> str:
    """Return the story as HTML."""
    fresh, chance = story.accuracies[0], story.accuracies[-1]
    guessing = math.log(story.batch_size)
    curve = Chart(
        title="Training loss",
        note="nats; faint: as measured, over it the mean of a twentieth of the run",
        series=[Series("loss", 0, story.losses)],
        show=four_digits,
        mark=(f"guessing: ln {story.batch_size} = {guessing:.2f}", guessing),
        noisy=True,
        from_zero=True,
    )
    return render_page(
        "demo.html",
        title="A model that learned to match images and words",
        story=story,
        time=minutes(story.seconds),
        times=f"{fresh.top1 / chance.top1:.0f}",
        curve=over_steps(curve, story.losses[-1][0]),
        answers=[(_image(answer.image), answer, _right(answer)) for answer in story.answers],
        right=sum(map(_right, story.answers)),
        searches=[
            (found.query, [_image(image, f"{score:.2f}") for image, score in found.images])
            for found in story.searches
        ],
        credits="; ".join(_credits(story)),
    )


def _image(image: DemoImage, note: str = "") -> PageImage:
    return PageImage(image.data, image.caption, note, tooltip=image.credit, media_type=image.media_type)


def _right(answer: DemoAnswer) -> bool:
    return answer.guesses[0][0] == answer.truth


def _credits(story: Story) -> Sequence[str]:
    shown = [answer.image for answer in story.answers]
    shown += [image for found in story.searches for image, _ in found.images]
    return sorted({image.credit for image in shown if image.credit})
