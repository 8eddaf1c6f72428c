"""Read image-text pairs, and turn their images into tensors.

`open_source` opens a dataset in any of the known forms; its items are `Example`s.
"""

from diptych.data.example import Example
from diptych.data.sources.opening import Source, open_source

__all__ = ["Example", "Source", "open_source"]
