"""How many updates a call of the Learner makes."""

# Long enough that a call costs nothing beside its updates, short enough for a live progress bar and
# for whoever waits after a Ctrl-C.
_SECONDS_PER_CALL = 0.5
_MOST_UPDATES = 100
# Workers reduce the loss in each call: their calls must be alike, whatever time they take.
_UPDATES_OF_WORKERS = 20


class Pace:
    """Updates per call: one while TensorFlow traces, then about half a second's."""

    def __init__(self, num_workers: int):
        self.updates = 1
        self._num_workers = num_workers
        self._num_calls = 0

    @property
    def is_first(self) -> bool:
        """Whether no call has been made."""
        return self._num_calls == 0

    def took(self, updates: int, seconds: float) -> None:
        """Learns from a call."""
        self._num_calls += 1
        if self._num_workers > 1:
            self.updates = _UPDATES_OF_WORKERS
        elif self._num_calls > 1:  # The first says nothing of the time of an update.
            fitting = _SECONDS_PER_CALL * updates / max(seconds, 1e-9)
            self.updates = max(1, min(_MOST_UPDATES, int(fitting)))
