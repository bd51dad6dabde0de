"""What a process asks of the machine when it starts."""

import resource

from lichen.node.process import allow_open_files


def test_a_process_may_open_as_many_files_as_its_bounds_add_up_to():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        allow_open_files(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, before[1])
        allow_open_files(100)  # never fewer than there are
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
