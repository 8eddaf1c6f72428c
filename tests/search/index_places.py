"""The kinds of places that an index can lie in; `conftest.py` opens them."""

PLACES = ("memory", "folder", "bucket", "postgres")
