"""What a script beside a page holds: bytes as text, facts as JSON, pictures as files (`study.live`)."""

from __future__ import annotations

import base64
import gzip
import io
import json


def as_text(content: bytes) -> str:
    """Bytes as text: compressed, then base64."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def as_script(name: str, facts: dict[str, object]) -> bytes:
    """The script that hands facts, as JSON has them, to what shows a kind or to what starts a runtime."""
    return f"live.data.{name} = {json.dumps(facts)};\n".encode()


def as_file(picture, kind: str = "PNG", **options: object) -> bytes:
    """A Pillow image as a file of one of its formats, with the options of that."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
