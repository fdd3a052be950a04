"""Names and addresses under which the studio's server answers."""

from __future__ import annotations

import ipaddress

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Hosts:
    """Names under which the server answers: another name may be a foreign site's, rebound to here.

    Args:
        host: Address that it listens on.
        port: Its port.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = port
        self._open = not is_loopback(host)
        self._names = {*LOOPBACK, host.lower()}

    def knows(self, host: str) -> bool:
        """True for a `Host` header of ours.

        Beyond loopback any address by number is: no name leads there, so that none can be rebound.
        """
        host = host.lower()
        if self.port == 80 and not host.endswith(":80"):  # browsers leave it out
            host += ":80"
        name, _, port = host.rpartition(":")
        if port != str(self.port):
            return False
        return name in self._names or (self._open and _is_address(name.strip("[]")))


def is_loopback(host: str) -> bool:
    """True where nothing but this machine reaches an address."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
