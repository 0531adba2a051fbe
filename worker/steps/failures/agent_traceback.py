"""The traceback of what an agent raised, for its author: from the agent's own first frame on, bounded, no locals."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TRACEBACK_MAX_BYTES: Final = 16 * 1024
# The end has the place and the message, the beginning how it came there.
_HEAD_BYTES: Final = 4 * 1024
_SECRET_MIN_CHARS: Final = 4


def format_agent_traceback(raised: BaseException, folder: Path, settings: Mapping[str, str]) -> str:
    """Return the traceback of an exception, with the names of ``settings`` instead of their values."""
    trace = raised.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(str(folder)):
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(raised), raised, trace or raised.__traceback__))
    for name, value in settings.items():
        if len(value) >= _SECRET_MIN_CHARS:
            text = text.replace(value, f"<{name}>")
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= TRACEBACK_MAX_BYTES:
        return encoded.decode("utf-8")
    cut = f"\n… ({len(encoded) - TRACEBACK_MAX_BYTES} bytes left out)\n".encode()
    tail_bytes = TRACEBACK_MAX_BYTES - _HEAD_BYTES - len(cut)
    return (encoded[:_HEAD_BYTES] + cut + encoded[-tail_bytes:]).decode("utf-8", "ignore")
