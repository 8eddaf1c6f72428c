"""What a signal does to the loop."""

import signal
import threading

import pytest

from diptych.training.saving.interrupt import Terminated, interruption, on_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with on_interrupt() as stop:
        assert not stop.made
        signal.raise_signal(number)
        assert stop.made
        assert stop.number == number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_interrupts_at_once(first: signal.Signals) -> None:
    with on_interrupt():
        signal.raise_signal(first)
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt) as caught:
            signal.raise_signal(signal.SIGINT)
        assert not isinstance(caught.value, Terminated)


def test_sigterm_is_an_interrupt_with_an_exit_code_of_its_own() -> None:
    assert isinstance(interruption(signal.SIGTERM), Terminated)
    assert Terminated.exit_code == 143
    assert type(interruption(signal.SIGINT)) is KeyboardInterrupt


def test_outside_the_main_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def look() -> None:
        with on_interrupt() as stop:
            seen.append((stop.made, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
