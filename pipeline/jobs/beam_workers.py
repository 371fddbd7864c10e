"""Worker processes of Beam's DirectRunner whose loss ends the job; imported, this takes the place of Beam's own.

Beam waits without end for the answer of a worker that was killed, for want of memory as a rule, where it does not run in
a container.
"""

from __future__ import annotations

import threading
from typing import Any

from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    ControlFuture,
    SubprocessSdkWorkerHandler,
    WorkerHandler,
)
from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker

__all__ = ["LostWorkerError"]


class LostWorkerError(ConnectionError):
    """A worker of the job has ended; what is done is kept, and the same may succeed later."""


@WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class _WatchedWorker(SubprocessSdkWorkerHandler):
    """A worker in a process of its own, in whose place an error answers once it is lost."""

    def start_worker(self) -> None:
        self.worker = SubprocessSdkWorker(
            self._worker_command_line, self.control_address, self.provision_info, self.worker_id
        )
        self.worker_thread = threading.Thread(name="run_worker", target=self._follow, daemon=True)
        self.worker_thread.start()

    def _follow(self) -> None:
        try:
            self.worker.run()
        except RuntimeError as error:
            lost = LostWorkerError(
                f"a worker of the job was lost ({error}). The machine may have run out of memory: give the workers less "
                "(execution.memory_mb), or let fewer work (--direct_num_workers)."
            )
            connection: Any = self.control_conn

            def answer(request: Any) -> ControlFuture | None:
                if not hasattr(request, "instruction_id"):  # The mark at the end of all requests.
                    return None
                return _failed(ControlFuture(request.instruction_id or "lost"), lost)

            connection.push = answer
            for future in list(connection._futures_by_id.values()):
                _failed(future, lost)


def _failed(future: Any, error: Exception) -> ControlFuture:
    """Have whoever waits for a future, or asks whether it is done, learn of an error."""
    future.abort(error)
    future.is_done = lambda: True
    return future
