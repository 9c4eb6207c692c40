"""What the engine takes at once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine takes at once."""

    sessions: int
    queue_chunks: int
    batch_chunks: int
    run_steps: int
    kept_bytes: int
    inline_s: float
    """A run that will be shorter is made on the event-loop thread when nothing else is ready: changing threads would
    take longer."""
    queue_delay_s: float = 0.0
    """How long a batch that is not full may wait for more chunks."""
    run_s: float = float("inf")
    """How long a run of long chunks is to take,"""
    beside_s: float = float("inf")
    """and beside sessions that send a few steps at once."""
    slow_run_s: float = float("inf")
    """Runs that take longer are logged."""

    @property
    def second_rows(self) -> int:
        """Most rows beside those of sessions: of everything queued, and of a run whose chunks came to nothing meanwhile."""
        return self.queue_chunks + self.batch_chunks
