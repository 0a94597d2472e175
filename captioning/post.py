r"""One HTTP POST that ends: within a time, and within a size.

The usual clients limit the time between two packets and read a body of any length, so a server that sends a byte a
second, or without end, holds or fills the caller. Here the whole exchange has one deadline and the body one limit,
which also holds after unzipping. Redirects are not followed, since they would take the headers, and with them a key, to
another place.
"""

import threading
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from http.client import HTTPException
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError

LIMIT = 2**20
r"""Bytes of a body: a caption, and what a model thought before it, are far shorter."""

T = TypeVar("T")


class Unreachable(Exception):
    r"""No answer: the connection was refused, lost or is not HTTP."""


class Unreadable(Exception):
    r"""An answer whose body is longer than the limit or packed in a way that was not asked for."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def post(
    url: str, body: bytes, headers: Mapping[str, str], timeout: float, *, proxies: bool = True, limit: int = LIMIT
) -> tuple[int, Mapping[str, str], bytes]:
    r"""Sends `body` and waits for the whole answer.

    Args:
        url: The address, ``http://`` or ``https://``.
        body: What to send.
        headers: Sent to that address only.
        timeout: Seconds for everything together: name look-up, connection, sending, and the whole answer.
        proxies: Whether to go through the proxies that the environment names.
        limit: The most bytes of the answer's body, also after unzipping.

    Returns:
        The status, the headers by their names in lower case, and the body.

    Raises:
        TimeoutError: The answer was not complete in time.
        Unreachable: There was none.
        Unreadable: It is too long, or packed otherwise than by gzip or deflate.
    """

    over = threading.Event()
    try:
        return _within(timeout, lambda: _exchange(url, body, headers, timeout, proxies, limit, over))
    finally:
        over.set()


def _exchange(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    timeout: float,
    proxies: bool,
    limit: int,
    over: threading.Event,
) -> tuple[int, Mapping[str, str], bytes]:
    handlers: list[Any] = [_NoRedirects, *([] if proxies else [urllib.request.ProxyHandler({})])]
    request = urllib.request.Request(url, body, {"Accept-Encoding": "identity", **headers})
    try:
        try:
            response: Any = urllib.request.build_opener(*handlers).open(request, timeout=timeout)
        except HTTPError as error:  # an answer like any other, with a status
            response = error
        with response:
            data = b""
            while len(data) <= limit and not over.is_set() and (more := response.read1(2**16)):
                data += more
            found = {name.lower(): value for name, value in response.headers.items()}
            status: int = response.status
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise TimeoutError from None
        raise Unreachable from None
    except TimeoutError:
        raise
    except (OSError, HTTPException, ValueError):
        raise Unreachable from None

    if (packed := found.get("content-encoding", "identity").strip().lower()) in ("gzip", "x-gzip", "deflate"):
        try:
            data = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, limit + 1)
        except zlib.error:
            raise Unreadable("is damaged") from None
    elif packed != "identity":
        raise Unreadable(f"is packed as {packed[:20]!r}, which was not asked for")
    if len(data) > limit:
        raise Unreadable(f"is longer than {limit} bytes")
    return status, found, data


def _within(seconds: float, work: Callable[[], T]) -> T:
    # A thread that nobody waits for: neither a server nor a look-up of a name can hold the caller, nor the end of
    # the program.
    done: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

    def run() -> None:
        try:
            done.put((True, work()))
        except BaseException as error:
            done.put((False, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        well, found = done.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if not well:
        raise found
    return found  # type: ignore[no-any-return]
