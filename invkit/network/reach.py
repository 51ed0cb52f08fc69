"""Whether weights that libraries fetch can be had: found out in two seconds, without importing the libraries."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

REACHED_WITHIN = 2.0  # seconds in which a server must answer a first call
SERVERS = {"torchvision": "https://download.pytorch.org", "timm": "https://huggingface.co"}


def reachable(url: str) -> bool:
    """Whether a connection to a server, or to the proxy that leads there, opens within `REACHED_WITHIN` seconds."""
    proxy = next((os.environ[key] for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
                  if os.environ.get(key)), None)  # fmt: skip
    parts = urlsplit(proxy or url)
    opened = []

    def connect() -> None:  # in a thread, since looking up a name heeds no time limit
        address = parts.hostname, parts.port or 443
        with suppress(OSError), socket.create_connection(address, REACHED_WITHIN) as way:
            if proxy and parts.scheme == "http":  # it has to answer too, not only to listen
                way.sendall(f"CONNECT {urlsplit(url).hostname}:443 HTTP/1.1\r\n\r\n".encode())
                way.recv(1)
            opened.append(True)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(REACHED_WITHIN)
    return bool(opened)


def out_of_reach(library: str) -> str | None:
    """The server of a library's weights ("torchvision", or timm's), where it does not answer and nothing was fetched
    from there before; None where the weights may be had."""
    server = SERVERS.get(library) or os.environ.get("HF_ENDPOINT", SERVERS["timm"])
    caches = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    kept = [Path(os.environ.get("TORCH_HOME", caches / "torch"), "hub/checkpoints").expanduser().glob("*.*")]
    if library != "torchvision":
        hub = os.environ.get("HF_HUB_CACHE", Path(os.environ.get("HF_HOME", caches / "huggingface"), "hub"))
        kept.append(Path(hub).expanduser().glob("models--*/snapshots/*/*"))
    fetched = any(file for files in kept for file in files)
    return None if fetched or reachable(server) else server
