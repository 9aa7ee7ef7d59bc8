"""The thread that owns a driver: what it hands over, and that it always ends."""

import gc
import os
import subprocess
import sys
import threading
import traceback
import weakref

import pytest

from gcpp_edge.device.worker import Worker
from gcpp_edge.errors import DeviceError


class Driver:
    """Notes on which threads it is opened and closed."""

    def __init__(self) -> None:
        self.opened, self.closed = threading.get_ident(), 0
        self.closings = 0

    def close(self) -> None:
        self.closed = threading.get_ident()
        self.closings += 1


@pytest.fixture
def worker():
    worker = Worker(Driver)
    yield worker
    worker.close()


def test_work_runs_on_the_drivers_thread_and_gives_its_result(worker) -> None:
    assert worker.perform(threading.get_ident) == worker.driver.opened != threading.get_ident()


def test_work_on_the_thread_that_performs_more_does_it_at_once(worker) -> None:
    assert worker.perform(lambda: worker.perform(threading.get_ident)) == worker.driver.opened


def test_an_error_is_raised_where_the_work_came_from_with_its_own_traceback(worker) -> None:
    def fail_here() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        worker.perform(fail_here)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-1] == "fail_here"
    assert "perform" in names
    assert worker.perform(lambda: 5) == 5


def test_an_interrupt_in_the_work_does_not_end_the_thread(worker) -> None:
    with pytest.raises(KeyboardInterrupt):
        worker.perform(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert worker.perform(lambda: 5) == 5


def test_an_error_while_opening_is_raised_and_the_thread_ends() -> None:
    before = threading.active_count()

    def refuse() -> Driver:
        raise DeviceError("no GPU")

    with pytest.raises(DeviceError, match="no GPU"):
        Worker(refuse)
    gc.collect()
    assert threading.active_count() == before


def test_close_closes_the_driver_on_its_thread_once() -> None:
    worker = Worker(Driver)
    driver = worker.driver
    worker.close()
    worker.close()
    assert (driver.closed, driver.closings) == (driver.opened, 1)


def test_work_for_a_closed_worker_is_refused(worker) -> None:
    worker.close()
    with pytest.raises(DeviceError, match="closed. Load the model again"):
        worker.perform(lambda: 1)


def test_a_worker_that_nobody_holds_closes_its_driver() -> None:
    worker = Worker(Driver)
    driver = worker.driver
    del worker
    gc.collect()
    assert driver.closed == driver.opened


def test_a_worker_that_is_dropped_on_its_own_thread_closes_its_driver() -> None:
    held = [Worker(Driver)]
    driver = held[0].driver
    thread = held[0]._thread
    held[0].perform(held.clear)
    thread.join(5)
    assert not thread.is_alive()
    assert driver.closed == driver.opened


def test_a_driver_is_closed_after_an_error_too() -> None:
    worker = Worker(Driver)
    driver = worker.driver
    with pytest.raises(ZeroDivisionError):
        worker.perform(lambda: 1 // 0)
    worker.close()
    assert driver.closings == 1


def test_the_thread_keeps_nothing_of_its_callers_while_it_waits(worker) -> None:
    class Thing:
        pass

    thing = Thing()
    seen = weakref.ref(thing)
    worker.perform(lambda thing=thing: None)
    del thing
    gc.collect()
    assert seen() is None


def test_many_threads_get_their_own_answers(worker) -> None:
    found: dict[int, list[int]] = {}

    def ask(number: int) -> None:
        found[number] = [worker.perform(lambda: number) for _ in range(200)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answers == [number] * 200 for number, answers in found.items())


PROGRAM = """
import os, sys, threading
from gcpp_edge.device.worker import Worker
from gcpp_edge.errors import DeviceError

class Driver:
    def close(self):
        print("closed on", threading.current_thread().name, flush=True)

worker = Worker(Driver)
{}
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM.format(code)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("code", "status"), [("", 0), ("sys.exit(3)", 3), ("raise ValueError('oh')", 1), ("worker.perform(sys.exit)", 0)]
)
def test_the_driver_is_closed_when_the_interpreter_leaves(code: str, status: int) -> None:
    done = run(code)
    assert done.returncode == status
    assert done.stdout == "closed on gcpp-edge device\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_is_told_and_leaves_cleanly() -> None:
    done = run(
        "worker.perform(int)\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        worker.perform(int)\n"
        "    except DeviceError as error:\n"
        "        print('child:', error, flush=True)\n"
        "    worker.close()\n"
        "    sys.exit(0)\n"
        "os.wait()\n"
    )
    assert done.returncode == 0
    child, parent = done.stdout.splitlines()
    assert "does not survive a fork" in child
    assert parent == "closed on gcpp-edge device"
