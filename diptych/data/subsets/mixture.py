"""Mix several sources in chosen proportions."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from diptych.data.sources.opening import Source, open_source, table_options_for
from diptych.data.subsets.joined import JoinedSource, parts_of
from diptych.errors import SettingsError


class MixtureSource(JoinedSource):
    """Several sources, each with the number of times that its examples are seen in an epoch (`order.epoch_order`).

    places: as the recipe writes them; they go before the keys, so that a further source changes no key.

    Attributes:
        weights: (examples,), this number for every example.
        mixed: the number of parts of each source.
    """

    def __init__(
        self, sources: Sequence[Source], places: Sequence[str], times: Sequence[float], *, name: str
    ) -> None:
        super().__init__(sources, places, name=name)
        self._times = tuple(times)
        self.mixed = tuple(len(parts_of(source)) for source in sources)

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        return np.repeat(np.array(self._times), [len(source) for source in self._sources])

    def describe(self) -> str:
        """Summarise what was found in each source, and its share of an epoch."""
        counts = [times * len(source) for times, source in zip(self._times, self._sources, strict=True)]
        return "\n".join(
            f"{source.describe()}\n  {times:g} times an epoch: {count / sum(counts):.1%} of the mixture"
            for source, times, count in zip(self._sources, self._times, counts, strict=True)
        )


def open_mixture(times: Mapping[str, float], **options: str | None) -> MixtureSource:
    """Open the sources of a mixture.

    times: location of a source (see `open_source`) = how often each of its examples is seen in an epoch, above 0.
    options: those of `open_source`, each for the tables among them that take it.

    Raises:
        SettingsError: no source, or a number that is not above 0.
        DataError: a source cannot be read.
    """
    if not times:
        raise SettingsError('[data] mixture is empty; expected a table such as { "photos/*.tar" = 2.0 }')
    for place, value in times.items():
        if not 0 < value < float("inf"):
            raise SettingsError(
                f"[data] mixture {place!r} = {value}; expected a number above 0, how often its examples are seen in "
                "an epoch; leave out a source that is not wanted"
            )
    given = {name: value for name, value in options.items() if value is not None}
    # An option that no source takes is passed to each of them, which raises its error.
    takers = {name: [place for place in times if name in table_options_for(place)] or times for name in given}
    sources = [
        open_source(place, **{name: value for name, value in given.items() if place in takers[name]})
        for place in times
    ]
    return MixtureSource(sources, list(times), list(times.values()), name=" + ".join(times))
