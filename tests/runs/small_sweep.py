"""A recipe of seconds, over four images of one colour each, for tests of sweeps."""

from pathlib import Path

from PIL import Image

_RECIPE = """
[model.architecture]
embed_dim = 16
image = {{ resolution = 32, patch = 16, width = 32, layers = 1, heads = 2 }}
text = {{ width = 32, context_length = 16 }}
[data]
train = "{pairs}"
[augmentation]
name = "none"
{more}
[training]
steps = {steps}
batch_size = 4
"""


def write_recipe(folder: Path, *, steps: int, more: str = "") -> str:
    """Write the images and the recipe into `folder`; return the recipe's path. more: further sections."""
    pairs = folder / "pairs"
    pairs.mkdir()
    for name in ("red", "green", "blue", "black"):
        Image.new("RGB", (32, 32), name).save(pairs / f"{name}.png")
        (pairs / f"{name}.txt").write_text(name)
    file = folder / "recipe.toml"
    file.write_text(_RECIPE.format(pairs=pairs, steps=steps, more=more))
    return str(file)
