"""The browser for the tests of the page: found, installed where that is possible, or asked for in words."""

import os
from pathlib import Path

import pytest

import dev
from local import chromium

pytestmark = pytest.mark.skipif(os.name == "nt", reason="makes shell scripts")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any browser; its only programs are those in the folder given."""
    monkeypatch.setattr(chromium, "PLACES", ())
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(path: Path, text: str) -> Path:
    """A shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_chromium_is_what_is_named_or_else_the_first_on_path(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None where there is none."""
    assert chromium.find_chromium() is None
    chrome = program(bare / "google-chrome", "")
    assert chromium.find_chromium() == str(chrome)
    assert chromium.find_chromium() == str(chrome)
    monkeypatch.setenv("CHROMIUM", "/opt/other/chrome")
    assert chromium.find_chromium() == "/opt/other/chrome"


def test_root_with_apt_installs_it_and_others_do_not(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CI runs; a failing apt stops nothing, since the tests that need the browser say what to do."""
    log = bare / "log"
    program(bare / "apt-get", f'echo "$@" >> {log}; exit 1')
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    dev.make_browser()
    assert not log.exists()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    dev.make_browser()
    update, install = log.read_text().splitlines()
    assert "update" in update
    assert install.endswith("chromium fonts-dejavu-core")
    program(bare / "chromium", "")
    dev.make_browser()
    assert len(log.read_text().splitlines()) == 2
