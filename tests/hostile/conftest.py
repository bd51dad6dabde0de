"""The same network and watchers as the attacks that run with all tests."""

from tests.hostile.network.conftest import (  # noqa: F401 (fixtures)
    gateway,
    network,
    still_true,
    truth,
)
