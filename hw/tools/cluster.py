"""Runs functions on the workers of a Dask scheduler, which the extra `cluster` is for."""

import logging
import threading
import time
from importlib import util

from .errors import ToolError

REACH = 10
"""Seconds in which the scheduler must answer, and must have a worker."""

PATIENCE = 60
"""Seconds without any worker after which a function is given up."""


class Cluster:
    """Workers of a scheduler; to be closed.

    Parameters
    ----------
    address : str
        Such as "tcp://host:8786".

    Raises
    ------
    ValueError
        If the package `distributed` is missing.
    ToolError
        If nothing answers at the address, or there is no worker.
    """

    def __init__(self, address):
        if not util.find_spec("distributed"):
            raise ValueError("--scheduler needs distributed: pip install 'm2xfp-rtl[cluster]'")
        from distributed import Client

        # What it would log comes as an exception, too.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        self._stopped = threading.Event()
        try:
            self._client = Client(address, timeout=REACH, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ToolError(f"--scheduler {address} cannot be reached: {reason}") from None
        try:
            self._client.wait_for_workers(1, timeout=REACH)
        except TimeoutError:
            self.close()
            raise ToolError(f"--scheduler {address} has no worker after {REACH} s") from None

    def run(self, function, *arguments):
        """Runs a function on a worker and waits for it.

        The scheduler gives it to another worker if one dies with it, a few times.

        Returns
        -------
        object

        Raises
        ------
        ToolError
            If too many workers died with it, none is left, or the scheduler is gone.
        """
        from distributed import CancelledError, KilledWorker

        future = self._client.submit(function, *arguments, pure=False)
        seen = time.monotonic()
        try:
            while True:
                try:
                    return future.result(timeout=1)
                except TimeoutError:
                    if future.done():
                        return future.result()
                # While the scheduler does not answer, there is no information.
                if self._client.scheduler_info().get("workers"):
                    seen = time.monotonic()
                if self._stopped.is_set():
                    raise ToolError("stopped")
                if time.monotonic() - seen > PATIENCE:
                    raise ToolError(f"the cluster has had no worker for {PATIENCE} s")
        except KilledWorker:
            raise ToolError("every worker that tried it died") from None
        except CancelledError:
            raise ToolError("the scheduler is gone") from None
        finally:
            future.release()

    def stop(self):
        """Lets every `run` end."""
        self._stopped.set()

    def close(self):
        """Disconnects."""
        self._client.close()
