r"""Addresses of endpoints: where a captioner's name leads, and what in it must not be there."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from captioning.captioner import CaptionError

OPENAI = "https://api.openai.com/v1"


def split(name: str) -> tuple[str, str | None]:
    r"""``MODEL`` or ``MODEL@http://HOST/v1`` as model and address; a model's name may have an ``@`` in it, too.

    Raises:
        CaptionError: An address without ``http://`` or ``https://``, which OpenAI would be asked for as part of the
            model's name.
    """

    if found := re.fullmatch(r"(.*?)@(https?://.*)", name, re.IGNORECASE | re.DOTALL):
        return found[1], found[2]
    last = name.rpartition("@")[2] if "@" in name else ""
    if last.lower() == "localhost" or set(last) & set(":/."):
        raise CaptionError(
            f"{_shown(last)!r} is an address without http:// or https://: write openai:MODEL@http://HOST/v1; "
            f"if it is part of a model's name, say where the model is, as in openai:MODEL@{OPENAI}"
        )
    return name, None


def host_of(url: str, model: str, key: str) -> str:
    r"""The host of an address that has no more than a host and a path.

    Raises:
        CaptionError: It has more, such as a key, or is not valid. The message has none of it.
    """

    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # such as a port that is not a number
        whole = False
    if whole and (parts.username is not None or parts.password or parts.query or parts.fragment):
        raise CaptionError(
            f"the address of {model!r} at {parts.hostname} has more than a host and a path: "
            "a key belongs into the environment, as OPENAI_API_KEY"
        )
    if len(key) >= 12 and (key in url or key in model):
        raise CaptionError("the key in OPENAI_API_KEY also stands in the captioner's name: leave it out there")
    if not whole or not all(33 <= ord(c) < 127 for c in url):
        raise CaptionError(
            f"{_shown(url)!r} is not the address of an endpoint: write one like http://127.0.0.1:8000/v1"
        )
    return str(parts.hostname)


def _shown(url: str) -> str:
    # What of an address an error may show: a user and password come before the host, other keys in the query
    return re.split(r"[?#]", url.rpartition("@")[2])[0][:100]


def this_machine(host: str) -> bool:
    r"""Whether what is sent to the host stays on this machine."""

    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
