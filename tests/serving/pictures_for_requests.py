"""Pictures as requests hold them."""

import base64
import io

from PIL import Image


def png(colour: tuple[int, int, int] = (220, 20, 20), size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def data_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()
