"""An index served over HTTP: the API, and the page for people."""
