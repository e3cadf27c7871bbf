"""The checks of `make lint` for Markdown files."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_docs", ROOT / "scripts" / "check_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "text, finding",
    [
        ("See `channel/log.rs` and `Hub::postpone`.", None),
        ("`exited` in `pool/hub/deaths.rs` takes the link back.", None),
        ("[Tests](tests/python/README.md), `crates/maniple-sys/`, `target/`.", None),
        ("```\n`gone.rs`, done by nobody\n```", None),
        ("See `channel/gone.rs`.", "no such file: channel/gone.rs"),
        ("See `crates/gone/`.", "no such folder: crates/gone/"),
        ("`Hub::vanishedxyz` does it.", "do not contain vanishedxyz"),
        ("`take_over_the_world`,\nwhich is `postpone` in `channel/log.rs`.", "log.rs does not contain postpone"),
        ("[Nowhere](docs/gone.md)", "leads nowhere: docs/gone.md"),
    ],
)
def test_the_check_finds_a_document_with_a_stale_name(check: ModuleType, text: str, finding: str | None) -> None:
    names = check.tracked()
    # Without this file, which contains the stale names.
    known = check.words([name for name in names if name != "tests/python/test_documents.py"])
    found = [what for _, what in check.problems("README.md", text, names, known)]
    if finding is None:
        assert found == []
    else:
        assert any(finding in what for what in found)
