"""WordNet's nouns: what a name may mean, its synonyms, and what it is a kind of.

Reads the database files of WordNet 3.0 (`data.noun`, `index.noun`, wndb(5WN)), such as those of Debian's wordnet-base.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# Lexicographer files of things that a drawing can show (lexnames(5WN)).
VISIBLE = {
    "05": "animal", "06": "artifact", "08": "body", "13": "food", "17": "object", "18": "person", "20": "plant",
}  # fmt: skip
# From here up, nobody would search for the word of a kind.
_ABSTRACT = """
    entity|physical entity|object|whole|artifact|living thing|organism|cell|causal agent|matter|substance|thing|
    instrumentality|device|conveyance|article|commodity|consumer goods|durables|structure|covering|unit|part|material|
    protective covering|vascular plant|chordate|vertebrate|placental|eutherian|invertebrate|natural object|obstruction|
    geological formation|facility|construction|way|passage|system|equipment|solid|natural elevation|body part|creator|
    external body part|creation|product|produce|nutriment|reproductive structure|plant organ|plant part|woody plant|
    herb|organ|self-propelled vehicle|foodstuff|ingredient|amniote|even-toed ungulate|odd-toed ungulate|hoofed mammal|
    animal product|animal material|restraint|public transport|domestic animal|implement|measuring instrument|area
"""
ABSTRACT = frozenset(word.strip() for word in _ABSTRACT.split("|"))


@dataclass(frozen=True)
class Synset:
    """One sense: its words, the lexicographer file, the offsets of its hypernyms, and the definition."""

    words: tuple[str, ...]
    file: str
    above: tuple[str, ...]
    gloss: str


class WordNet:
    """The nouns of a WordNet database folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _senses(self) -> dict[str, tuple[str, ...]]:
        found = {}
        for line in (self._folder / "index.noun").read_text("ascii").splitlines():
            if not line.startswith(" "):
                fields = line.split()
                found[fields[0]] = tuple(fields[-int(fields[2]) :])
        return found

    @cached_property
    def _synsets(self) -> dict[str, Synset]:
        found = {}
        for line in (self._folder / "data.noun").read_text("ascii").splitlines():
            if line.startswith(" "):
                continue
            facts, _, gloss = line.partition(" | ")
            fields = facts.split()
            count = int(fields[3], 16)
            words = tuple(word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
            pointers = fields[5 + 2 * count :]
            above = tuple(
                pointers[at + 1] for at in range(0, len(pointers), 4) if pointers[at] in ("@", "@i")
            )
            found[fields[0]] = Synset(words, fields[1], above, gloss.split(";")[0].strip())
        return found

    def visible(self, name: str, hints: Collection[str] = ()) -> Synset | None:
        """Return the sense of a noun, in the singular or plural, that a drawing of that name shows; None without one.

        The first sense of a kind that `hints` names (`animal`), else the first of all if it is visible: `bar` is a room
        and no chocolate. A word for persons is rather the animal, food or plant that has the name too (`tiger`).
        """
        word = name.lower().strip().replace(" ", "_")
        for form in (word, word.removesuffix("s"), word.removesuffix("es")):
            if offsets := self._senses.get(form):
                senses = [self._synsets[offset] for offset in offsets]
                hinted = [sense for sense in senses if VISIBLE.get(sense.file) in hints]
                if hinted or senses[0].file not in VISIBLE:
                    return hinted[0] if hinted else None
                rather = [sense for sense in senses if VISIBLE.get(sense.file) in ("animal", "food", "plant")]
                return rather[0] if VISIBLE[senses[0].file] == "person" and rather else senses[0]
        return None

    def kinds(self, synset: Synset, most: int = 6) -> list[str]:
        """Return what a synset is a kind of, nearest first: each hypernym's first word, without abstract ones."""
        found: list[str] = []
        while synset.above and len(found) < most:
            synset = self._synsets[synset.above[0]]
            found += [synset.words[0]] * (synset.words[0] not in ABSTRACT)
        broad = VISIBLE.get(synset.file)
        return (
            found if broad in (None, "artifact", "object", "body") else list(dict.fromkeys([*found, broad]))
        )
