"""App settings and host.json."""

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from local.worker import AppFailed


class Settings:
    """App settings and host.json, with the settings that override it (`AzureFunctionsJobHost__a__b`)."""

    def __init__(self, file: Path, app: Path) -> None:
        raw = json.loads(file.read_text(encoding="utf-8-sig"))
        values = raw.get("Values", raw) if isinstance(raw, dict) else None
        if not isinstance(values, dict):
            raise SystemExit(f'{file}: must be an object with "Values"')
        self.base_environment = dict(os.environ)
        """The environment without the app settings."""
        os.environ.update({name: str(value) for name, value in values.items()})
        try:
            self._host = json.loads((app / "host.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SystemExit(f"{app} has no host.json: is it a function app?") from None

    def host(self, path: str, default: str) -> str:
        """A value of host.json, such as `extensions/queues/batchSize`."""
        if (
            text := os.environ.get(f"AzureFunctionsJobHost__{path.replace('/', '__')}")
        ) is not None:
            return text
        node: Any = self._host
        for part in path.split("/"):
            node = node.get(part, {}) if isinstance(node, dict) else {}
        return str(node) if node != {} else default

    def seconds(self, path: str, default: str) -> float:
        """A value of the form hh:mm:ss, in seconds."""
        hours, minutes, seconds = self.host(path, default).split(":")
        return timedelta(
            hours=int(hours), minutes=int(minutes), seconds=float(seconds)
        ).total_seconds()


def resolved(text: str) -> str:
    """A binding's text with `%SETTING%` replaced. Raises `AppFailed` where the setting is missing."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise AppFailed(f"the app setting {match[1]}, which a binding names, is missing")
        return os.environ[match[1]]

    return re.sub(r"%([^%]+)%", value, text)
