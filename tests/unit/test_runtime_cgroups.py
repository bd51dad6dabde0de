"""Finding and using cgroups, on fake trees of files."""

import os

import pytest

from lichen.runtime.cgroups import Cgroup, Cgroups, Mount, find_cgroups, parse_mounts

V1 = """\
30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
33 1 8:1 / / rw - ext4 /dev/sda rw
"""
V1_OWN = "9:name=systemd:/\n4:memory:/jobs/7\n2:cpu,cpuacct:/\n0::/user.slice\n"


def test_both_versions_are_read_from_proc():
    assert parse_mounts(V1, V1_OWN) == [
        Mount(1, "/sys/fs/cgroup/memory/jobs/7", ("memory",)),
        Mount(1, "/sys/fs/cgroup/cpu,cpuacct", ("cpu", "cpuacct")),
        Mount(2, "/sys/fs/cgroup/unified/user.slice"),
    ]


def test_a_container_that_shows_only_its_own_part_is_understood():
    line = "30 25 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    assert parse_mounts(line, "0::/docker/abc/app\n") == [Mount(2, "/sys/fs/cgroup/app")]


def test_version_2_limits_are_written_and_its_events_read(tmp_path):
    cgroup = Cgroups(2, dict.fromkeys(("memory", "pids", "cpu"), tmp_path)).create(3)
    folder = tmp_path / f"lichen-{os.getpid()}-3"
    cgroup.limit_memory(1000)
    cgroup.limit_pids(64)
    cgroup.limit_cpu()
    written = {p.name: p.read_text() for p in folder.iterdir()}
    assert written["memory.max"] == "1000"
    assert written["memory.swap.max"] == "0"
    assert written["pids.max"] == "64"
    assert written["cpu.max"] == "20000 20000"
    assert cgroup.procs == (str(folder / "cgroup.procs"),)
    assert not cgroup.oom_killed()
    (folder / "memory.events").write_text("low 0\noom 3\noom_kill 1\n")
    (folder / "pids.events").write_text("max 2\n")
    assert cgroup.oom_killed()
    assert cgroup.pids_refused()


def test_version_1_uses_a_folder_per_controller(tmp_path):
    for name in ("memory", "pids"):
        (tmp_path / name).mkdir()
    cgroup = Cgroup(1, {"memory": tmp_path / "memory" / "a", "pids": tmp_path / "pids" / "a"})
    cgroup.limit_memory(1000)
    cgroup.limit_pids(5)
    cgroup.limit_cpu()
    assert (tmp_path / "memory/a/memory.limit_in_bytes").read_text() == "1000"
    assert (tmp_path / "pids/a/pids.max").read_text() == "5"
    assert len(cgroup.procs) == 2


def test_empty_folders_of_dead_processes_are_swept_and_those_of_living_ones_kept(tmp_path):
    dead, living = tmp_path / "lichen-4194999-1", tmp_path / f"lichen-{os.getpid()}-1"
    other = tmp_path / "somebody-else"
    for folder in (dead, living, other):
        folder.mkdir()
    Cgroups(2, {"memory": tmp_path}).sweep()
    assert not dead.exists()
    assert living.exists()
    assert other.exists()


@pytest.mark.parametrize("content", ["", "33 1 8:1 / / rw - ext4 /dev/sda rw\n"])
def test_without_any_cgroup_there_is_none(tmp_path, content):
    (tmp_path / "mountinfo").write_text(content)
    (tmp_path / "own").write_text("0::/\n")
    assert find_cgroups(str(tmp_path / "mountinfo"), str(tmp_path / "own")) is None
    assert find_cgroups(str(tmp_path / "absent"), str(tmp_path / "own")) is None
