"""The client's end of a gate: see handlers/gate.py for the other one."""

import json
import socket

# Long enough for a cold worker on a busy machine, and shorter than the bound on the whole script,
# so that a failure tells its line.
DEADLINE_S = 60


class Gate:
    """Accepts handlers that wait for a word."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE_S)
        self.port = self._listener.getsockname()[1]

    def accept(self):
        connection, _ = self._listener.accept()
        connection.settimeout(DEADLINE_S)
        return Arrival(connection)


class Arrival:
    """One handler that has arrived and waits."""

    def __init__(self, connection):
        self._connection = connection
        self._lines = connection.makefile("r")
        self.hello = json.loads(self._lines.readline())

    def release(self, word):
        self._connection.sendall((word + "\n").encode())

    def end(self):
        """How the SDK's task for the job ended: posted, cancelled, or empty for a dead worker."""
        return self._lines.readline().strip()
