"""What all tests share: markers that skip visibly, the corpus, hypothesis profiles."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT.parent / "shared" / "corpus"

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=25,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "deep",
    deadline=None,
    max_examples=500,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# What programs keep of a user between two runs: not in the home of who runs the tests.
_STATE = tempfile.TemporaryDirectory(prefix="imprint-state-")
os.environ["XDG_STATE_HOME"] = _STATE.name

# A shell has what it starts in the background ignore Ctrl-C, nohup the end of the terminal; the
# programs that the tests interrupt would inherit that.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose tool or right is missing; in CI, a missing tool is a failure."""
    for marker in item.iter_markers("oracle"):
        for tool in marker.args:
            if shutil.which(tool) is None:
                reason = f"the oracle {tool} is not installed"
                if os.environ.get("IMPRINT_REQUIRE_ORACLES") == "1":
                    pytest.fail(reason, pytrace=False)
                pytest.skip(reason)
    if item.get_closest_marker("root") is not None:
        if os.geteuid() != 0:
            pytest.skip("needs root")
        if not Path("/dev/loop-control").exists():
            pytest.skip("needs loop devices")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The root of the real images that other tools made."""
    if not CORPUS.is_dir():
        pytest.skip("the corpus is not beside the repository")
    return CORPUS
