"""Write CLIP's tokenizer in the files of transformers, which other programs read as well."""

from pathlib import Path

from diptych.tokenizer.vocabulary import byte_names, read_merges
from diptych.weights.folders import write_json

START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path, context_length: int) -> None:
    """Write the vocabulary (tokens by id, and merges) and the settings of `CLIPTokenizer`."""
    merges = read_merges().decode().splitlines()
    numbers = {token: number for number, token in enumerate(_tokens(merges))}
    write_json(folder / "vocab.json", numbers)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    names = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": context_length, **names}
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", names)


def _tokens(merges: list[str]) -> list[str]:
    names = byte_names()
    return [
        *names,
        *(f"{name}</w>" for name in names),
        *(line.replace(" ", "") for line in merges),
        START,
        END,
    ]
