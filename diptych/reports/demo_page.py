"""The page that `diptych demo` writes: one HTML file with everything inside, readable in light and dark."""

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from string import Template

from diptych.runs.demo_story import Accuracy, DemoAnswer, DemoImage, DemoSearch, Story
from diptych.wording import percent


def page(story: Story) -> str:
    """The story as HTML."""
    fresh = story.accuracies[0]
    chance = story.accuracies[-1]
    return _PAGE.substitute(
        pairs=f"{story.pairs:,}",
        duration=duration(story.seconds),
        top1=percent(fresh.top1),
        times=f"{fresh.top1 / chance.top1:.0f}",
        curve=loss_curve(story.losses, story.batch_size),
        task=escape(story.task),
        accuracies="\n".join(map(_accuracy_row, story.accuracies)),
        answers="\n".join(map(_answer_card, story.answers)),
        right=sum(answer.guesses[0][0] == answer.truth for answer in story.answers),
        answered=len(story.answers),
        searches="\n".join(map(_search_row, story.searches)),
        next_steps="\n".join(
            f"<li><code>{escape(command)}</code><span>{escape(job)}</span></li>"
            for command, job in story.next_steps
        ),
        credits=escape("; ".join(_credits(story))),
    )


def duration(seconds: float) -> str:
    """142 as `2 min 22 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def loss_curve(losses: Sequence[tuple[int, float]], batch_size: int) -> str:
    """The loss over steps as inline SVG, as measured (faint) and smoothed; dashed: ln(batch size), for guessing."""
    width, height, left, bottom, top, right = 480, 230, 34, 34, 14, 10
    guessing = math.log(batch_size)
    last = max(step for step, _ in losses)
    highest = max(guessing, *(loss for _, loss in losses)) * 1.05
    ticks = range(math.floor(highest) + 1)

    def x(step: float) -> float:
        return left + (width - left - right) * step / last

    def y(loss: float) -> float:
        return top + (height - top - bottom) * (1 - loss / highest)

    def path(points: Iterable[tuple[int, float]]) -> str:
        return "M" + "L".join(f"{x(step):.1f} {y(loss):.1f}" for step, loss in points)

    every = max(1, math.ceil(len(ticks) / 6))
    grid = "".join(
        f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text x="{left - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>'
        for tick in ticks
        if tick % every == 0
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="The training loss falls from '
        f'{losses[0][1]:.2f} to {losses[-1][1]:.2f} over {last} steps">'
        f'<g class="grid">{grid}'
        f'<text x="{left}" y="{height - 12}">0</text>'
        f'<text x="{width - right}" y="{height - 12}" text-anchor="end">{last:,} steps</text></g>'
        f'<path class="guess" d="{path(((0, guessing), (last, guessing)))}"/>'
        f'<text class="guess-text" x="{width - right}" y="{y(guessing) + 15:.1f}" text-anchor="end">'
        f"guessing: ln {batch_size} = {guessing:.2f}</text>"
        f'<path class="raw" d="{path(losses)}"/><path class="smooth" d="{path(_smoothed(losses))}"/></svg>'
    )


def _smoothed(losses: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Mean over a window of a twentieth of the run around each step."""
    reach = max(1, len(losses) // 40)
    result = []
    for position, (step, _) in enumerate(losses):
        near = losses[max(0, position - reach) : position + reach + 1]
        result.append((step, sum(loss for _, loss in near) / len(near)))
    return result


def _accuracy_row(row: Accuracy) -> str:
    interval = "" if row.interval is None else f"{percent(row.interval[0])} to {percent(row.interval[1])}"
    # A bar as long as the share; a hair stays visible for chance.
    return (
        f'<tr><th scope="row">{escape(row.who)}</th><td>{percent(row.top1)}</td><td>{percent(row.top5)}</td>'
        f'<td class="quiet">{interval}</td>'
        f'<td class="bar"><i style="width:max(2px,{100 * row.top1:.2f}%)"></i></td></tr>'
    )


def _answer_card(answer: DemoAnswer) -> str:
    guesses = "".join(
        f'<li class="{"hit" if label == answer.truth else ""}"><span>{escape(label)}</span>'
        f"<b>{percent(probability)}</b>"
        f'<i style="width:max(2px,{100 * probability:.1f}%)"></i></li>'
        for label, probability in answer.guesses
    )
    right = answer.guesses[0][0] == answer.truth
    return (
        f'<figure class="card">{_img(answer.image)}<figcaption>'
        f'<p class="truth">{escape(answer.truth)} <em class="{"yes" if right else "no"}">'
        f"{'right' if right else 'not first'}</em></p><ol>{guesses}</ol></figcaption></figure>"
    )


def _search_row(found: DemoSearch) -> str:
    pictures = "".join(
        f"<figure>{_img(picture)}<figcaption>{escape(picture.caption)}<br><b>{score:.2f}</b></figcaption></figure>"
        for picture, score in found.images
    )
    return (
        f'<section class="query"><h3>{escape(found.query)}</h3><div class="strip">{pictures}</div></section>'
    )


def _img(picture: DemoImage) -> str:
    source = f"data:{picture.media_type};base64,{base64.b64encode(picture.data).decode('ascii')}"
    return (
        f'<img src="{source}" alt="{escape(picture.caption)}" title="{escape(picture.credit)}" '
        'width="64" height="64" loading="lazy">'
    )


def _credits(story: Story) -> list[str]:
    shown = [answer.image for answer in story.answers]
    shown += [picture for found in story.searches for picture, _ in found.images]
    return sorted({picture.credit for picture in shown if picture.credit})


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Diptych demo</title>
<style>
:root {
  --paper: #faf9f7; --panel: #ffffff; --ink: #22252b; --quiet: #6b7078; --line: #e4e1db;
  --accent: #2f6f8f; --faint: #2f6f8f40; --good: #2f7d4f; --miss: #a5622a; --mat: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181c; --panel: #1e2126; --ink: #e6e4df; --quiet: #9aa0a8; --line: #31353c;
    --accent: #7fb8d4; --faint: #7fb8d440; --good: #7cc49a; --miss: #dba56f; --mat: #ffffff;
  }
}
* { box-sizing: border-box; margin: 0; }
body { background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif;
  padding: 3rem 1.25rem 4rem; }
main { max-width: 60rem; margin: 0 auto; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.02em; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 3.25rem 0 0.35rem; }
h3 { font-size: 1rem; font-weight: 600; }
p.lead { font-size: 1.1rem; color: var(--quiet); margin-top: 0.75rem; max-width: 47rem; }
p.lead strong { color: var(--ink); font-weight: 600; }
h2 + p { color: var(--quiet); margin-bottom: 1.1rem; max-width: 47rem; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 12px; padding: 1.1rem 1.25rem; }
svg { display: block; width: 100%; max-width: 42rem; height: auto; margin: 0 auto; }
svg text { font-size: 12px; fill: var(--quiet); }
svg .grid line { stroke: var(--line); }
svg .raw { fill: none; stroke: var(--faint); stroke-width: 1; }
svg .smooth { fill: none; stroke: var(--accent); stroke-width: 2.2; stroke-linejoin: round; }
svg .guess { fill: none; stroke: var(--quiet); stroke-dasharray: 3 4; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.5rem 0.9rem 0.5rem 0; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; font-weight: 500; white-space: normal; }
thead th { color: var(--quiet); font-size: 0.85rem; font-weight: 500; }
tbody tr { border-top: 1px solid var(--line); }
td.quiet { color: var(--quiet); font-size: 0.9rem; }
td.bar { width: 26%; padding-right: 0; }
td.bar i, .card li i { display: block; height: 6px; border-radius: 3px; background: var(--accent); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 0.9rem; }
.card { display: flex; gap: 1rem; align-items: flex-start; background: var(--panel); border: 1px solid var(--line);
  border-radius: 12px; padding: 1rem; }
img { background: var(--mat); border-radius: 10px; padding: 6px; object-fit: contain; flex: none; width: 76px;
  height: 76px; border: 1px solid var(--line); }
.card figcaption { flex: 1; min-width: 0; font-size: 0.88rem; }
.truth { font-weight: 600; line-height: 1.3; margin-bottom: 0.4rem; }
.truth em { font-style: normal; font-weight: 500; font-size: 0.78rem; margin-left: 0.25rem; }
.yes { color: var(--good); } .no { color: var(--miss); }
.card ol { list-style: none; padding: 0; }
.card li { display: grid; grid-template-columns: 1fr auto; gap: 0 0.6rem; color: var(--quiet); margin-top: 0.25rem; }
.card li span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.card li b { font-weight: 500; font-variant-numeric: tabular-nums; }
.card li i { grid-column: 1 / -1; height: 4px; background: var(--faint); }
.card li.hit { color: var(--ink); } .card li.hit i { background: var(--good); }
.query { margin-top: 1.4rem; }
.query h3::before { content: "\\201C"; } .query h3::after { content: "\\201D"; }
.strip { display: grid; grid-template-columns: repeat(6, 1fr); gap: 0.7rem; margin-top: 0.55rem; }
.strip img { width: 100%; height: auto; aspect-ratio: 1; }
.strip figcaption { font-size: 0.78rem; line-height: 1.35; color: var(--quiet); margin-top: 0.3rem;
  overflow-wrap: anywhere; }
.strip b { font-weight: 500; font-variant-numeric: tabular-nums; }
.next { list-style: none; margin-top: 0.9rem; padding: 0.35rem 1.25rem; }
.next li { padding: 0.65rem 0; border-top: 1px solid var(--line); display: grid; grid-template-columns: 3fr 2fr;
  gap: 0.15rem 1.25rem; align-items: baseline; }
.next li:first-child { border-top: 0; }
code { font: 0.88rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.next span { color: var(--quiet); font-size: 0.92rem; }
footer { margin-top: 3rem; color: var(--quiet); font-size: 0.8rem; }
@media (max-width: 40rem) {
  body { padding: 1.75rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  .panel { padding: 0.9rem; }
  .next { padding: 0.2rem 0.9rem; }
  svg text { font-size: 15px; }
  td.bar, th.bar, td.quiet, th.quiet { display: none; }
  .cards { grid-template-columns: 1fr; }
  .strip { grid-template-columns: repeat(3, 1fr); }
  .next li { grid-template-columns: 1fr; }
}
</style>
</head>
<body>
<main>
<h1>A model that learnt to match pictures and words</h1>
<p class="lead">Trained from scratch on this machine in <strong>$duration</strong>, on <strong>$pairs</strong> pairs.
It now names drawings in a style it never saw with <strong>$top1</strong> right, $times times as often as chance.</p>

<h2>The loss falls</h2>
<p>Each step shows the model a batch of pictures and captions, and asks which belongs to which.</p>
<div class="panel">$curve</div>

<h2>Zero-shot accuracy</h2>
<p>$task</p>
<div class="panel"><table>
<thead><tr><th scope="col">model</th><th scope="col">first answer</th><th scope="col">among five</th>
<th scope="col" class="quiet">95 % interval</th>
<th scope="col" class="bar" aria-label="first answer as a bar"></th></tr></thead>
<tbody>
$accuracies
</tbody>
</table></div>

<h2>Classify</h2>
<p>diptych-mini, which comes with the package, on pictures chosen at random: $right of $answered first answers are
right. It was trained on drawings, emoji and icons, so ask it about those.</p>
<div class="cards">
$answers
</div>

<h2>Search</h2>
<p>The test pictures, found by words alone; the number is the cosine similarity of picture and query. These words
were picked because they work. The model is small: for others, such as &ldquo;bird&rdquo; or &ldquo;dessert&rdquo;,
it finds nothing sensible.</p>
$searches

<h2>What to try next</h2>
<ul class="next panel">
$next_steps
</ul>
<footer>Pictures were resized. Credits: $credits.</footer>
</main>
</body>
</html>
""")
