"""Refuse the parts of a model that the folders of other libraries have no place for."""

from diptych.errors import CheckpointError
from diptych.models.architectures import (
    Architecture,
    BagOfWords,
    ModifiedResNet,
    TextTransformer,
    VisionTransformer,
)


def plain_towers(
    architecture: Architecture, library: str
) -> tuple[VisionTransformer | ModifiedResNet, TextTransformer]:
    """Return the sizes of the image and text towers of a CLIP that `library` can hold.

    Raises:
        CheckpointError: the model has a part that a CLIP of open_clip or transformers does not have.
    """
    text = architecture.text_transformer
    if text is None:
        found = "a bag of words" if isinstance(architecture.text, BagOfWords) else "another text side"
        raise _refusal(
            library, f"text tower: the model has {found}, and a CLIP of {library} a text transformer"
        )
    if text.positions != "learned" or text.embedding_width is not None or text.known:
        raise _refusal(
            library,
            "text tower: only a text transformer with learned positions, without an embedding width and with "
            "every id of the vocabulary can be written",
        )
    for part, value in (
        ("second layer after each tower", architecture.heads),
        ("bias of the logits", architecture.logit_bias),
        ("low-rank updates", architecture.low_rank),
    ):
        if value is not None:
            raise _refusal(library, f"{part}, which change what the model answers")
    return architecture.image, text


def _refusal(library: str, what: str) -> CheckpointError:
    return CheckpointError(f"{library} has no such {what}; export the model as torchscript instead")
