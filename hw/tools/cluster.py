# SPDX-License-Identifier: BSD-2-Clause
"""Runs functions on the workers of a Dask scheduler; needs the extra `cluster`."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from importlib import util
from typing import Any

from .errors import ToolError

REACH = 10
"""Seconds within which the scheduler must answer and have a worker."""

ANSWER = 2
"""Seconds within which the address must take a connection."""

PATIENCE = 60
"""Seconds without any worker after which `Cluster.run` gives up."""


def _try(address, option):
    """Connects and disconnects: Dask would try again and again until its time is up."""
    from distributed.comm import addressing

    scheme, _, place = address.rpartition("://")
    if (scheme or "tcp") not in ("tcp", "tls"):
        raise ValueError(f"{option} must be of the form tcp://host:8786 or tls://host:8786, "
                         f"not {address!r}")
    try:
        host, port = addressing.parse_host_port(place)
        if not host or not 0 < port < 1 << 16:
            raise ValueError
    except ValueError:
        raise ValueError(f"{option} must have a host and a port, as in tcp://host:8786, "
                         f"not {address!r}") from None
    try:
        with socket.create_connection((host, port), ANSWER) as connection:
            connection.settimeout(REACH)
            # A scheduler is the first to speak, but behind TLS.
            if scheme != "tls" and not connection.recv(1):
                raise OSError("not a Dask scheduler")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ToolError(f"{option} {address} cannot be reached: {reason}") from None


class Cluster:
    """A connection to a scheduler and its workers; the caller closes it.

    Parameters
    ----------
    address : str
        Such as "tcp://host:8786".
    option : str
        Of the command line, for errors.

    Raises
    ------
    ValueError
        If the package `distributed` is missing, or the address is none.
    ToolError
        If nothing answers at the address, or there is no worker.
    """

    def __init__(self, address: str, option: str = "--scheduler") -> None:
        if not util.find_spec("distributed"):
            raise ValueError(f"{option} needs distributed: pip install 'm2xfp-rtl[cluster]'")
        from distributed import Client

        _try(address, option)
        # Everything that it would log is raised as an exception, too.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        self._stopped = threading.Event()
        try:
            self._client = Client(address, timeout=REACH, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ToolError(f"{option} {address} cannot be reached: {reason}") from None
        try:
            self._client.wait_for_workers(1, timeout=REACH)
        except TimeoutError:
            self.close()
            raise ToolError(f"{option} {address} has no worker after {REACH} s") from None

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a function on a worker and waits for it.

        If the worker dies, the scheduler tries another one, a few times.

        Returns
        -------
        object
            The function's result.

        Raises
        ------
        ToolError
            If too many workers died, none is left, or the scheduler is gone.
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
                # No entry means that the scheduler does not answer.
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

    def stop(self) -> None:
        """Makes every `run` raise ToolError."""
        self._stopped.set()

    def close(self) -> None:
        """Disconnects."""
        self._client.close()
