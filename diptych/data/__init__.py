"""Where pairs come from, and how their images become tensors.

`open_source` reads whatever people have; `Example` is what comes out of it.
"""

from diptych.data.example import Example
from diptych.data.sources.opening import Source, open_source

__all__ = ["Example", "Source", "open_source"]
