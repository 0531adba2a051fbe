"""The traceback of what an agent raised, for its author: from the agent's own first frame on, bounded, no locals."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Final

import worker.gateway
from worker.agent_settings import hide_settings

TRACEBACK_MAX_BYTES: Final = 16 * 1024
# The end has the place and the message, the beginning how it came there.
_HEAD_BYTES: Final = 4 * 1024
_GATEWAY_FOLDER: Final = str(Path(worker.gateway.__file__).parent)


def format_agent_traceback(raised: BaseException, folder: Path, settings: Mapping[str, str]) -> str:
    """Return the traceback of an exception, in which no value of ``settings`` stands; raises nothing."""
    try:
        own_folder, trace = folder.absolute(), raised.__traceback__
        while trace is not None and not Path(trace.tb_frame.f_code.co_filename).is_relative_to(own_folder):
            trace = trace.tb_next
        summary = traceback.TracebackException(type(raised), raised, trace or raised.__traceback__)
        _leave_out_gateway(summary)
        text = hide_settings("".join(summary.format()), settings)
    except Exception as error:  # noqa: BLE001 - an agent's class may raise anything
        return f"{type(raised).__name__}, whose traceback raises {type(error).__name__}"
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= TRACEBACK_MAX_BYTES:
        return encoded.decode("utf-8")
    cut = f"\n… ({len(encoded) - TRACEBACK_MAX_BYTES} bytes left out)\n".encode()
    tail_bytes = TRACEBACK_MAX_BYTES - _HEAD_BYTES - len(cut)
    return (encoded[:_HEAD_BYTES] + cut + encoded[-tail_bytes:]).decode("utf-8", "ignore")


def _leave_out_gateway(summary: traceback.TracebackException) -> None:
    """Leave out the frames of the gateway and of what it calls, dozens, of which the agent's author knows nothing."""
    pending = [summary]
    for each in pending:
        each.stack[:] = takewhile(lambda frame: not frame.filename.startswith(_GATEWAY_FOLDER), each.stack)
        pending += filter(None, (each.__cause__, each.__context__))
