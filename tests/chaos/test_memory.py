"""The check of the server's memory: it finds a leak in any process of the tree, and nothing where there is none."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.checks import memory_is_level
from tests.chaos.memory import of_tree

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="this system does not say which pages of a process are shared"
)

MB = 1 << 20
# A parent that holds 60 MB, and a child that was forked from it. Each line of input is Python for the child to run.
TREE = f"""
import os, sys, mmap
held = bytearray(os.urandom(1 << 20)) * 60
down, up = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(down[1])  # else it would never read the end
    for line in os.fdopen(down[0]):
        exec(line)
        os.write(up[1], b"done\\n")
    os._exit(0)
print(flush=True)
for line in sys.stdin:
    os.write(down[1], line.encode())
    os.read(up[0], {MB})
    print(flush=True)
os.close(down[1])
os.wait()
"""


class Tree:
    """The processes, and what they hold."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        process.stdout.readline()  # type: ignore[union-attr]

    def held(self) -> dict[str, int]:
        return of_tree(self._process.pid, lambda each: "parent" if each.pid == self._process.pid else "child")

    def child_does(self, line: str) -> None:
        self._process.stdin.write(f"{line}\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        self._process.stdout.readline()  # type: ignore[union-attr]


@contextmanager
def running() -> Iterator[Tree]:
    command = [sys.executable, "-c", TREE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Tree(process)
        process.stdin.close()  # type: ignore[union-attr]  # the child ends with it, and the parent


def test_what_a_forked_child_shares_with_its_parent_is_counted_once() -> None:
    with running() as tree:
        held = sum(tree.held().values())
    assert 60 * MB <= held < 90 * MB


def test_a_leak_in_a_child_is_found() -> None:
    with running() as tree:
        early = tree.held()
        tree.child_does("leak = os.urandom(1 << 20) * 12")
        late = tree.held()
    with pytest.raises(AssertionError):
        memory_is_level(early, late)


def test_a_leak_into_memory_that_processes_share_is_found() -> None:
    with running() as tree:
        early = tree.held()
        tree.child_does("leak = mmap.mmap(-1, 12 << 20); leak.write(bytes(12 << 20))")
        late = tree.held()
    with pytest.raises(AssertionError):
        memory_is_level(early, late)


def test_memory_of_a_process_that_is_missing_is_not_taken_for_less() -> None:
    with pytest.raises(AssertionError, match="missing"):
        memory_is_level({"server": 100, "superlink": 100}, {"server": 100})


def test_shared_pages_that_the_child_writes_to_are_its_own_from_then_on() -> None:
    with running() as tree:
        early = tree.held()
        tree.child_does("for place in range(0, 30 << 20, 4096): held[place] = 1")
        late = tree.held()
    assert sum(late.values()) - sum(early.values()) >= 28 * MB


def test_a_file_that_is_mapped_is_no_growth(tmp_path: Path) -> None:
    path = tmp_path / "library"
    path.write_bytes(bytes(40 * MB))
    with running() as tree:
        early = tree.held()
        tree.child_does(
            f"file = open({str(path)!r}, 'rb'); mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ);"
            " len(mapped[:])"
        )
        late = tree.held()
    memory_is_level(early, late)
