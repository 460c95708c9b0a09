"""Whether the kernel killed for memory, from the files that it keeps of a cgroup (both versions)."""

import pytest

from fl_common.processes.memory_limit import MemoryKills, kills

MIB = 2**20


@pytest.fixture(params=["2", "2, from inside", "1", "1, from inside"])
def cgroup(request, tmp_path):
    """Return what to call `kills` with, and a function that writes the kernel's files."""
    version, inside = request.param[0], "inside" in request.param
    path = "" if inside else "docker/abc"  # a container sees its own folder at the root
    (tmp_path / "own").write_text("0::/docker/abc\n" if version == "2" else "0::/\n4:memory:/docker/abc\n1:cpu:/\n")
    folder = tmp_path / "mount" / ("memory" if version == "1" else "") / path
    folder.mkdir(parents=True)

    def write(count, limit, peak):
        if version == "2":
            (folder / "memory.events").write_text(f"low 0\nmax 9\noom {count}\noom_kill {count}\n")
            (folder / "memory.max").write_text("max\n" if limit is None else f"{limit}\n")
            (folder / "memory.peak").write_text(f"{peak}\n")
        else:
            (folder / "memory.oom_control").write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {count}\n")
            (folder / "memory.limit_in_bytes").write_text(f"{2**63 - 4096 if limit is None else limit}\n")
            (folder / "memory.max_usage_in_bytes").write_text(f"{peak}\n")

    write(0, 450 * MIB, 9 * MIB)
    return (tmp_path / "mount", tmp_path / "own"), write


def test_a_kill_for_memory_is_named_once_with_limit_and_peak(cgroup):
    where, write = cgroup
    watch = MemoryKills(*where)
    assert watch.word() == ""
    write(1, 450 * MIB, 449 * MIB)
    assert watch.word() == "out of memory: limit 450 MiB, peak 449 MiB"
    assert watch.word() == ""


def test_kills_from_before_are_not_named_and_no_limit_is_none(cgroup):
    where, write = cgroup
    write(3, None, 449 * MIB)
    assert MemoryKills(*where).word() == ""
    assert kills(*where).limit is None


def test_where_there_is_no_cgroup_nothing_is_named(tmp_path):
    assert MemoryKills(tmp_path, tmp_path / "none").word() == ""
