"""Queues, pipes and shared memory with little memory, few descriptors, short files and large pages; and their memory
while they are idle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pools import METHODS

PROGRAM = Path(__file__).parent / "programs" / "scarcity.py"


def outcome(package: str, method: str, *trial: str, program: Path = PROGRAM) -> str:
    argv = [sys.executable, str(program), package, method, *trial]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=85)
    if done.stdout.startswith("skipped"):
        pytest.skip(done.stdout.strip())
    return done.stdout.strip() or f"exit code {done.returncode}: {done.stderr[-2000:]}"


@pytest.mark.better_than_standard("SimpleQueue.put waits for a reader")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("trial", ["sizes_limited_before", "sizes_limited_later", "sizes_limited_elsewhere"])
def test_the_size_of_files_is_limited(mp_package: str, method: str, trial: str) -> None:
    assert outcome(mp_package, method, trial) == "ok"


@pytest.mark.better_than_standard("an item that wants a descriptor to be pickled is dropped")
@pytest.mark.parametrize("method", METHODS)
def test_no_descriptor_is_left(mp_package: str, method: str) -> None:
    assert outcome(mp_package, method, "no_descriptors") == "ok"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("who", ["parent", "child", "both"])
@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("pipe", ()),
        ("pipe", ("warm",)),
        ("pool", ()),
        ("pool", ("warm",)),
    ],
)
def test_large_objects_transfer_without_a_descriptor(
    mp_package: str, method: str, who: str, what: str, how: tuple[str, ...]
) -> None:
    program = PROGRAM.with_name("no_descriptor.py")
    assert outcome(mp_package, method, what, who, *how, program=program) == "ok"


@pytest.mark.parametrize("what", ["pipe", "pool"])
def test_large_objects_transfer_without_unshare(mp_package: str, what: str) -> None:
    said = outcome(mp_package, "fork", what, "both", "warm", "contained", program=PROGRAM.with_name("no_descriptor.py"))
    if said.startswith("skipped"):
        pytest.skip(said)
    assert said == "ok"


@pytest.mark.better_than_standard("an item is lost where there is no memory to receive it")
def test_little_memory_is_left(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "little_memory") == "ok"


@pytest.mark.better_than_standard("does not say what has become of the item")
def test_memory_is_short_during_unpickling(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "memory_is_short_as_it_is_unpickled") == "ok"


@pytest.mark.better_than_standard("a result is lost, or the pool is")
def test_get_can_be_repeated_after_a_lack_of_memory(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "a_result_without_memory") == "ok"


@pytest.mark.better_than_standard("the future fails, or waits forever")
def test_an_executor_keeps_a_result_without_memory(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "a_future_without_memory") == "ok"


@pytest.mark.better_than_standard("has no `get_many`")
def test_objects_taken_at_once_without_memory_come_or_are_reported_as_lost(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "many_without_memory") == "ok"


@pytest.mark.better_than_standard("does not say what has become of the message")
def test_an_array_without_memory_is_reported_as_lost(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "large_arrays_without_memory") == "ok"


@pytest.mark.better_than_standard("does not say that the message is lost, and reads its rest as messages")
def test_an_interrupted_message_without_memory_is_reported_as_lost(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "an_interruption_without_memory") == "ok"


@pytest.mark.better_than_standard("what is left of the message is taken for others")
def test_messages_follow_a_message_that_is_too_large(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "messages_too_large") == "ok"


def test_a_fork_finds_no_thread_of_kept_messages(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "forks") == "ok"


@pytest.mark.parametrize("method", METHODS)
def test_kept_messages_cost_only_memory(mp_package: str, method: str) -> None:
    assert outcome(mp_package, method, "many_kept") == "ok"


@pytest.mark.better_than_standard("its shared memory is files that anybody can make shorter")
@pytest.mark.parametrize("method", METHODS)
def test_another_process_cannot_shorten_memory(mp_package: str, method: str) -> None:
    assert outcome(mp_package, method, "cut_short") == "ok"


@pytest.mark.parametrize("method", METHODS)
def test_idle_queues_and_pipes_keep_no_memory(mp_package: str, method: str) -> None:
    assert outcome(mp_package, method, "idle") == "ok"


@pytest.mark.better_than_standard("an unused queue stays open")
@pytest.mark.parametrize("method", METHODS)
def test_closed_queues_have_no_descriptors(mp_package: str, method: str) -> None:
    assert outcome(mp_package, method, "closed") == "ok"


def test_pages_of_64_kib(mp_package: str) -> None:
    # Other start methods begin with a loader that does not support such pages.
    assert outcome(mp_package, "fork", "large_pages") == "ok"
