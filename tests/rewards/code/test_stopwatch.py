"""The stopwatch's rule, on made-up readings of a process."""

import pytest

from r1cli.rewards.code import stopwatch
from r1cli.rewards.code.stopwatch import LOOK_SECONDS, Stopwatch


class Readings:
    """What /proc and the clock say, set by the test."""

    def __init__(self) -> None:
        self.now, self.cpu, self.ready = 100.0, 1.0, False


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    found = Readings()
    monkeypatch.setattr(stopwatch.time, "monotonic", lambda: found.now)
    monkeypatch.setattr(Stopwatch, "_look", lambda self: (found.cpu, found.ready))
    return found


def pass_time(watch: Stopwatch, readings: Readings, seconds: float, cpu: float = 0.0) -> bool:
    """Time goes by in looks; whether the limit was reached."""
    over = False
    for _ in range(round(seconds / LOOK_SECONDS)):
        readings.now += LOOK_SECONDS
        readings.cpu += cpu * LOOK_SECONDS
        over = watch.over()
    return over


def test_sleeping_is_charged_wall_clock_time(readings: Readings) -> None:
    watch = Stopwatch(1, seconds=2.0)
    assert not pass_time(watch, readings, 1.8)
    assert pass_time(watch, readings, 0.4)


def test_computing_is_charged_cpu_time_and_waiting_for_a_core_nothing(readings: Readings) -> None:
    watch = Stopwatch(1, seconds=2.0)
    assert not pass_time(watch, readings, 6.0, cpu=0.25)
    assert watch.used == pytest.approx(1.5)
    readings.ready = True
    assert not pass_time(watch, readings, 10.0)
    assert watch.used == pytest.approx(1.5)
    assert pass_time(watch, readings, 20.0)  # the wall-clock cap: 10 x 2 + 10


def test_a_judge_that_had_no_core_charges_nobody(readings: Readings) -> None:
    watch = Stopwatch(1, seconds=2.0)
    readings.now += 9.0
    assert not watch.over()
    assert watch.used == pytest.approx(2 * LOOK_SECONDS)
    readings.now += 9.0
    watch.resume()
    assert watch.used == pytest.approx(2 * LOOK_SECONDS)
