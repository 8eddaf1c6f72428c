# ruff: noqa: RUF001, SIM905 - letters that look alike are wanted, and words in a row are easy to read
"""The independent tokenizer to compare with, and texts to compare on."""

import html.entities
import importlib.util
import random
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from diptych.tokenizer import Tokenizer

WORDS = (
    "a the of on in with and photo picture dog dogs cat two 2021 12345 red café naïve "
    "it's don't we'll I'd THEY'VE isn't rock'n'roll O'Brien state-of-the-art "
    "www.example.com/a_b?c=d#e foo@bar.org C++ #tag $9.99 50% (left) [right] {x} a/b "
    "... !!! ?! -- — snake_case CamelCase Ελλάς ΣΑΣ Straße İstanbul ıl Привет мир 日本語 "
    "東京都 한국어 नमस्ते สวัสดี مرحبا שלום Việt Nam ½ ² ① Ⅳ ٣ ३ © ™ £5 €9 ✓ → ∞ ≈ ﬁsh ＡＢＣ "
    "ﾃｽﾄ 'ſ it'ſ K 'S ''' _ __ <b> </i> <3 & &c"
).split()
EMOJI = "🎉 🙂 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇨🇭 ❤️ ☃ 🏴󠁧󠁢󠁷󠁬󠁳󠁿 1️⃣ 😂😂😂😂 ©️".split()
CONTROLS = [chr(i) for i in [*range(0x20), 0x7F, *range(0x80, 0xA1), 0xAD, *range(0x200B, 0x2010)]] + [
    *map(chr, [*range(0x2028, 0x2030), *range(0x2066, 0x2070), 0x3000, 0x202F, 0x1680, 0x180E, 0xFEFF]),
    *map(chr, [*range(0xFFF9, 0xFFFE), 0xFFFF, 0xE000, 0xF8FF, 0x10FFFF, 0xE0001]),
    "\x1b[1;31m",
    "\r\n",
    "\ud83d\ude00",
]
ENCODINGS = ("latin-1", "cp1252", "cp1250", "cp1251", "cp1253", "iso-8859-2", "mac-roman", "cp437")
ENTITY_NAMES = sorted(html.entities.html5)
SPECIAL_TOKEN = re.compile(r"<\|(?:startoftext|endoftext)\|>", re.IGNORECASE)


def module_from(package: str, file: str) -> ModuleType:
    """One file of an installed package, without importing the package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    of_file = importlib.util.spec_from_file_location(f"reference_{package}", Path(spec.origin).parent / file)
    assert of_file is not None
    assert of_file.loader is not None
    module = importlib.util.module_from_spec(of_file)
    of_file.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def reference_encode() -> Callable[[str], list[int]]:
    """The tokenizer of OpenAI's own package (clip-anytorch): text to ids without start and end."""
    encode: Callable[[str], list[int]] = module_from("clip", "simple_tokenizer.py").SimpleTokenizer().encode
    return encode


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer()


def mojibake(text: str, chance: random.Random) -> str:
    for _ in range(chance.choice((1, 1, 1, 2))):
        text = text.encode("utf-8", "surrogatepass").decode(chance.choice(ENCODINGS), "replace")
    return text


def entity(chance: random.Random) -> str:
    name = chance.choice(ENTITY_NAMES)
    number = chance.choice([chance.randrange(0x500), chance.randrange(0x120000)])
    found = chance.choice(
        [
            f"&{name}",
            f"&{name.upper()}",
            f"&{name.rstrip(';')}x",
            f"&#{number};",
            f"&#x{number:x};",
            f"&#{number}",
        ]
    )
    return found.replace("&", "&" + chance.choice(("", "", "amp;", "amp;amp;", "#38;")))


def any_character(chance: random.Random) -> str:
    code = chance.choice([chance.randrange(0x250), chance.randrange(0x3000), chance.randrange(0x110000)])
    return chr(code) if not 0xD800 <= code < 0xE000 else "\ufffd"


# Bits of text that need cleaning, or that are not ASCII.
DIRT: tuple[Callable[[random.Random], str], ...] = (
    entity,
    any_character,
    lambda chance: chance.choice(EMOJI),
    lambda chance: chance.choice(CONTROLS),
    lambda chance: mojibake(chance.choice(WORDS + EMOJI), chance),
    lambda chance: (
        chance.choice("aeoucnkÅ") + "".join(chance.choices("\u0301\u0308\u0323\u0327\u030a\u3099", k=3))
    ),
    lambda chance: "".join(chance.choices("‘’“”´`'\"«»…–—•†ˆ˜šžœŸ€‹›ÃÂâ", k=3)),
    lambda chance: "".join(chance.choices("0123456789 \t\n.,'&;#<>|_-", k=6)),
)


@pytest.fixture(scope="session")
def make_texts() -> Callable[[int, int], list[str]]:
    """(count, seed) to texts: about half dirty, without the special tokens' spellings."""

    def make(count: int, seed: int) -> list[str]:
        chance = random.Random(seed)
        plain = [word for word in WORDS if word.isascii() and "&" not in word]
        texts = []
        for _ in range(count):
            if chance.random() < 0.5:
                parts = chance.choices(plain, k=chance.randrange(12))
                text = chance.choice((" ", " ", "  ", ", ")).join(parts)
            else:
                bits = [
                    chance.choice(WORDS) if chance.random() < 0.5 else chance.choice(DIRT)(chance)
                    for _ in range(8)
                ]
                text = "".join(bit + chance.choice(("", " ")) for bit in bits)
            texts.append(SPECIAL_TOKEN.sub("special", text))
        return texts

    return make
