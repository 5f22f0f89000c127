"""The clock of a host that is wrong by SKEW seconds."""

import os
import time

_skew = int(os.environ["SKEW"])
_true, _true_ns = time.time, time.time_ns
time.time = lambda: _true() + _skew
time.time_ns = lambda: _true_ns() + _skew * 1_000_000_000
