"""Make the model that diptych-mini starts from: its words lie where a sentence encoder puts them.

    python experiments/mini/word_vectors.py recipes/mini.toml ENCODER --out build/mini/start

The model is the recipe's, with the first weights of its seed, and has a bag of words. Its token embeddings are
replaced: each token's text goes through ENCODER (a folder of sentence-transformers, such as all-MiniLM-L6-v2), the
vectors are centred, and their first principal components are the embeddings. A word that no caption says then starts
near those that mean the like.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer

import diptych
from diptych.models.bag_of_words import BagOfWords
from diptych.models.clip import CLIP
from diptych.tokenizer import default_tokenizer
from diptych.training.recipes import load_recipe
from diptych.training.starting import starting_model

START = 49406  # the first id that does not stand for text


@torch.inference_mode()
def encoded(texts: list[str], folder: Path) -> torch.Tensor:
    """Return the encoder's vector of each text, (texts, width): the mean over its tokens, of unit length."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    found = torch.empty(len(texts), model.config.hidden_size)
    for first in range(0, len(order), 512):
        rows = order[first : first + 512]
        batch = tokenizer([texts[row] for row in rows], padding=True, return_tensors="pt")
        states = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        found[rows] = F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    return found


def main() -> None:
    """Write the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("encoder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--std", type=float, default=0.1, help="of the embeddings; that of a new tower is 0.02"
    )
    args = parser.parse_args()
    recipe = load_recipe(args.recipe, ("model.init=scratch",))
    torch.manual_seed(recipe.training.seed)
    model, preprocess = starting_model(recipe, print)
    assert isinstance(model, CLIP)
    assert isinstance(model.text, BagOfWords)
    tokenizer = default_tokenizer()
    vectors = encoded([tokenizer.decode([token]).strip() or "." for token in range(START)], args.encoder)
    centred = vectors - vectors.mean(0)
    table = model.text.token_embedding.weight
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    principal = centred @ axes[: table.shape[1]].T
    print(f"variance kept: {principal.var(0).sum() / centred.var(0).sum():.3f}")
    with torch.no_grad():
        table[:START] = args.std * principal / principal.std()
    print(diptych.save(model, preprocess, args.out))


if __name__ == "__main__":
    main()
