"""Copy a checkpoint with its weights in float16, and with its settings and history: so `diptych-mini` was packed.

python scripts/half_precision_copy.py runs/mini/model diptych-mini
"""

import sys

from diptych.weights.checkpoint import load_checkpoint, save_checkpoint


def main(source: str, target: str) -> None:
    model, preprocess, made = load_checkpoint(source)
    save_checkpoint(
        target, model, preprocess, settings=made.settings, history=made.history, precision="float16"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
