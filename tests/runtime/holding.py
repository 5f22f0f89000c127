"""Workers that run nothing: what the models of the scripts' states claim and end with."""

from arq_runtime.worker.ends import Ends
from arq_runtime.worker.job import ClaimedJob
from arq_runtime.worker.leases import Leases
from arq_runtime.worker.outages import Outages
from kit import QUEUE, App


class Holder:
    """A worker that claims and ends jobs, and runs none."""

    def __init__(self, app: App, name: str) -> None:
        self.claimed: list[ClaimedJob] = []
        self.leases = Leases(
            name,
            QUEUE,
            lease_s=60,
            keep_ms=600_000,
            apart_from=100,
            on_claimed=self.claimed.append,
            on_lost=lambda job: None,
        )
        self.ends = Ends(
            name,
            QUEUE,
            keep_ms=600_000,
            keep_failed_s=600,
            let_go=self.leases.let_go,
        )
        outages = Outages(None, is_patient=False, on_long=lambda: None, long_s=60)
        self.leases.open(app.redis, outages, is_burst=False)
        self.ends.open(app.redis, outages)
