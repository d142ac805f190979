"""The machines of a run."""

from dataclasses import dataclass

from cissod_bench.errors import UserError


@dataclass(frozen=True)
class Nodes:
    """The machines of a run; the run is started on each of them.

    Attributes:
        count: number of machines.
        rank: number of this machine, from 0.
        rendezvous: "HOST:PORT" of the first machine; None for any free port of a single machine.
    """

    count: int = 1
    rank: int = 0
    rendezvous: str | None = None

    def __post_init__(self) -> None:
        """Check.

        Raises:
            UserError: the attributes contradict each other.
        """
        if not 0 <= self.rank < self.count:
            raise UserError(f"--node-rank {self.rank}: with {self.count} nodes, write 0 to {self.count - 1}.")
        if self.rendezvous is None:
            if self.count > 1:
                raise UserError(f"{self.count} nodes need --rendezvous HOST:PORT, a free port on the first node.")
            return
        host, _, port = self.rendezvous.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UserError(f"--rendezvous {self.rendezvous}: write HOST:PORT.")
