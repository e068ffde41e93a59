"""Log lines of the cluster's processes, as text or as one JSON object a line. Tokens are never logged."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

LOG_BYTES = 10 * 1024 * 1024
TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True)
class LogSettings:
    """How an actor's process logs. Picklable, for it travels there."""

    level: str
    as_json: bool = False
    file: Path | None = None

    def apply(self) -> None:
        """Configures this process."""
        configure_logging(self.level, as_json=self.as_json, file=self.file)


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def configure_logging(level: str, *, as_json: bool = False, file: Path | None = None) -> None:
    """Logs of this process to stderr, or to a file. A repeat replaces what was set.

    :param file: appended to, where its folder is there; otherwise it is stderr after all (another machine,
        say).
    """
    stream: logging.Handler = logging.StreamHandler(sys.stderr)
    if file is not None and file.parent.is_dir():
        stream = RotatingFileHandler(file, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    stream.setFormatter(JsonFormatter() if as_json else logging.Formatter(TEXT_FORMAT))
    ours = logging.getLogger("fermata")
    ours.handlers[:] = [stream]
    ours.setLevel(level.upper())
    ours.propagate = False
