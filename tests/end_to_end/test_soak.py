"""A short soak of object lifetimes; `make soak` runs a long one."""

from __future__ import annotations

import pytest

from tests.end_to_end.soak import Soak


@pytest.mark.timeout(150)
@pytest.mark.filterwarnings("ignore:num_returns='dynamic':DeprecationWarning")
def test_nothing_is_left_but_what_live_refs_hold(session: str) -> None:
    Soak(seed=1).run(2_500, kill_every=150, report_every=500)
