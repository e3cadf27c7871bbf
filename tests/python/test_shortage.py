"""A program that runs out of descriptors, processes or threads: the affected call raises an error or waits, leaves
nothing behind, and everything works again afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pools import METHODS

PROGRAM = Path(__file__).parent / "programs" / "shortage.py"


def outcome(package: str, method: str, *what: str) -> str:
    argv = [sys.executable, str(PROGRAM), package, method, *what]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=85)
    said = done.stdout.strip()
    if said.startswith("skip"):
        pytest.skip(said)
    return said or f"exit code {done.returncode}: {done.stderr[-3000:]}"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", ["Process", "Pool"])
def test_a_child_costs_its_parent_few_descriptors(mp_package: str, method: str, what: str) -> None:
    assert outcome(mp_package, method, "cost", what) == "ok"


@pytest.mark.parametrize(
    ("method", "workers", "limit"), [("fork", 300, 1024), ("forkserver", 60, 256), ("spawn", 16, 96)]
)
def test_a_large_pool_fits_into_the_usual_limit(mp_package: str, method: str, workers: int, limit: int) -> None:
    assert outcome(mp_package, method, "many", str(workers), str(limit)) == "ok"


@pytest.mark.parametrize("method", METHODS)
def test_workers_have_no_descriptors_of_their_siblings(mp_package: str, method: str) -> None:
    assert outcome(mp_package, method, "siblings") == "ok"


@pytest.mark.better_than_standard("leaves descriptors behind")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", ["Process", "Pool"])
def test_room_for_nothing_then_for_one_descriptor_more(mp_package: str, method: str, what: str) -> None:
    assert outcome(mp_package, method, "walk_descriptors", what) == "ok"


@pytest.mark.better_than_standard("hangs")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", ["Process", "Pool"])
def test_room_for_one_descriptor_more_in_a_new_program(mp_package: str, method: str, what: str) -> None:
    assert outcome(mp_package, method, "first_descriptors", what) == "ok"


@pytest.mark.better_than_standard("hangs")
@pytest.mark.parametrize(
    # Another test refuses resources to the fork server.
    ("method", "what"),
    [("fork", "Process"), ("spawn", "Process"), *((method, "Pool") for method in METHODS)],
)
def test_room_for_no_process_then_for_one_more(mp_package: str, method: str, what: str) -> None:
    assert outcome(mp_package, method, "walk_processes", what) == "ok"


@pytest.mark.better_than_standard("hangs")
@pytest.mark.parametrize(("method", "what"), [("spawn", "Process"), *((method, "Pool") for method in METHODS)])
def test_little_memory_then_a_little_more(mp_package: str, method: str, what: str) -> None:
    assert outcome(mp_package, method, "walk_memory", what) == "ok"


@pytest.mark.better_than_standard("its error says nothing")
@pytest.mark.parametrize("method", METHODS)
def test_a_failed_pool_raises_advice(mp_package: str, method: str) -> None:
    assert outcome(mp_package, method, "says_what_to_do") == "ok"


@pytest.mark.better_than_standard("its workers' keeper dies")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", ["renewal", "all_die_meanwhile", "no_room_for_files"])
def test_a_pool_is_whole_again_when_the_shortage_ends(mp_package: str, method: str, case: str) -> None:
    assert outcome(mp_package, method, case) == "ok"


@pytest.mark.better_than_standard("its workers' keeper dies")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", ["queues_short", "queues_one_lives"])
def test_a_pool_of_queues_is_whole_again_when_the_shortage_ends(mp_package: str, method: str, case: str) -> None:
    assert outcome(mp_package, method, case) == "ok"


@pytest.mark.better_than_standard("its calls hang")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("by", ["engine", "queues"])
def test_a_pool_survives_a_shortage_in_its_workers_start(mp_package: str, method: str, by: str) -> None:
    assert outcome(mp_package, method, "workers_lack", by) == "ok"


@pytest.mark.better_than_standard("hangs")
def test_calls_end_after_a_long_shortage_in_the_workers_start(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "workers_lack_for_long") == "ok"


@pytest.mark.better_than_standard("does not end with its maker")
def test_a_process_without_resources_for_its_end_names_the_shortage(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "no_thread_for_the_lifeline") == "ok"


@pytest.mark.better_than_standard("hangs")
def test_a_pool_survives_the_failed_calls_without_workers(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "never_back") == "ok"


@pytest.mark.better_than_standard("starts thousands")
@pytest.mark.parametrize("method", METHODS)
def test_a_pool_does_not_fail_while_a_worker_lives(mp_package: str, method: str) -> None:
    assert outcome(mp_package, method, "one_lives") == "ok"


@pytest.mark.better_than_standard("the server ends")
@pytest.mark.parametrize("what", ["RLIMIT_NOFILE", "RLIMIT_NPROC"])
def test_a_fork_server_reports_a_shortage_and_continues(mp_package: str, what: str) -> None:
    assert outcome(mp_package, "forkserver", "server_lacks", what) == "ok"


@pytest.mark.better_than_standard("the fork server keeps the limits that it began with")
@pytest.mark.parametrize("method", METHODS)
def test_children_have_limits_that_were_raised_after_the_first(mp_package: str, method: str) -> None:
    assert outcome(mp_package, method, "raised_later") == "ok"


@pytest.mark.better_than_standard("workers keep the limits that they began with")
@pytest.mark.parametrize("method", METHODS)
def test_workers_have_limits_that_were_raised_after_their_start(mp_package: str, method: str) -> None:
    assert outcome(mp_package, method, "workers_raised_later") == "ok"


@pytest.mark.better_than_standard("has no handles on processes")
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize(
    ("name", "times", "said"), [("EMFILE", 1, "started"), ("EMFILE", 2, "refused"), ("ENFILE", 1, "refused")]
)
def test_no_descriptor_is_left_for_the_handle_on_a_child(
    mp_package: str, method: str, name: str, times: int, said: str
) -> None:
    assert outcome(mp_package, method, "no_pidfd_left", name, str(times)) == said


@pytest.mark.better_than_standard("its errors say nothing")
def test_a_manager_does_not_start_without_a_descriptor_for_a_client(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "manager_starts") == "ok"


@pytest.mark.better_than_standard("its clients wait for ever")
def test_a_client_of_a_manager_without_a_descriptor_gets_an_error(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "manager_lacks") == "ok"


@pytest.mark.better_than_standard("its clients wait for ever")
@pytest.mark.parametrize("key", ["", "key"])
def test_a_client_of_a_listener_without_a_descriptor_gets_an_error(mp_package: str, key: str) -> None:
    assert outcome(mp_package, "fork", "listener_lacks", key) == "ok"
