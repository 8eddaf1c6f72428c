"""Threads of the model beside threads that decode."""

import os


def wait_without_spinning() -> None:
    """Let the model's threads sleep while they wait for one another; to be called before torch is imported.

    As a rule they spin, which pays where nothing else wants the processors. Beside threads that decode images it
    cost a third of the time. What the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
