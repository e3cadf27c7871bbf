"""The check of the borders between crates and modules finds violations."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_borders", ROOT / "scripts" / "check_borders.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def crate(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / "crates" / "engine" / "src" / (name.replace("__", "/") + ".rs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_nothing_crosses_the_borders_of_this_project(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check_borders.py", str(ROOT)])
    code = check.main()
    assert (code, capsys.readouterr().out) == (0, "")


@pytest.mark.parametrize(
    "line",
    [
        "use std::os::fd::AsFd;",
        "/// use std::os::unix::net::UnixStream;",
        "fn f() { unsafe { libc::getpid() }; }",
        "use rustix::io;",
    ],
)
def test_the_check_finds_the_name_of_a_system(check: ModuleType, tmp_path: Path, line: str) -> None:
    crate(tmp_path, lib=f"//! A crate.\n{line}\n")
    (found,) = check.names_of_systems(tmp_path)
    assert found.startswith("crates/engine/src/lib.rs:2:")


def test_the_check_finds_a_systems_library_among_dependencies(check: ModuleType, tmp_path: Path) -> None:
    crate(tmp_path, lib="")
    (tmp_path / "crates" / "engine" / "Cargo.toml").write_text("[dependencies]\nlibc.workspace = true\n")
    (found,) = check.names_of_systems(tmp_path)
    assert "libc" in found


def test_the_check_finds_a_circle_through_reexports(check: ModuleType, tmp_path: Path) -> None:
    crate(
        tmp_path,
        lib="mod one;\nmod two;\n",
        one="use crate::two::{Inner as Other, three::{Four}};\npub struct One;\n",
        two__mod="mod inner;\nmod three;\npub use inner::Inner;\n",
        two__inner="pub struct Inner(crate::one::One);\n",
        two__three="pub struct Four;\n",
    )
    found = list(check.circles_of(tmp_path, "engine"))
    assert found[0] == "engine: a circle among one, two:"
    assert "    two/inner -> one" in found


def test_the_check_finds_a_circle_between_siblings(check: ModuleType, tmp_path: Path) -> None:
    crate(
        tmp_path,
        lib="mod pool;\n",
        pool__mod="mod hub;\nmod job;\n",
        pool__hub="use super::job::Job;\npub struct Hub;\n",
        pool__job="pub struct Job(super::hub::Hub);\n",
    )
    found = list(check.circles_of(tmp_path, "engine"))
    assert found[0] == "engine::pool: a circle among hub, job:"


def test_tests_comments_and_texts_make_no_circle(check: ModuleType, tmp_path: Path) -> None:
    crate(
        tmp_path,
        lib="mod one;\nmod two;\n",
        one="use crate::two::Two;\n",
        two='// crate::one\npub struct Two;\nconst TEXT: &str = "crate::one";\n'
        "#[cfg(test)]\nmod tests {\n    use crate::one;\n}\n",
    )
    assert list(check.circles_of(tmp_path, "engine")) == []


def test_the_check_finds_items_missing_in_a_backend_or_the_contract(check: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "crates" / "maniple-sys" / "src"
    item = "pub fn both() {}\n"
    files = {
        "lib.rs": "//! | `both` | it does |\n",
        "linux/mod.rs": "pub mod named;\n",
        "linux/aside.rs": "",
        "linux/named.rs": item + "pub fn untold() {}\npub fn alone() {}\n",
        **{f"{backend}/mod.rs": "pub mod named;\n" for backend in ("stub", "windows", "macos")},
        **{f"{backend}/named.rs": item + "pub fn untold() {}\n" for backend in ("stub", "windows")},
        "macos/named.rs": "pub fn untold() {}\npub fn alone() {}\n",
        **{f"unix/{name}.rs": "" for name in ("atfork", "epoch", "own")},
        **{f"handle/{name}.rs": "" for name in ("unix", "stub", "windows")},
    }
    for name, text in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    found = list(check.contract(tmp_path))
    for backend in ("stub", "windows"):
        assert f"maniple-sys: named::alone is in linux and not in {backend}" in found
    assert "maniple-sys: named::both is in linux and not in macos" in found
    assert "maniple-sys: the contract in lib.rs does not name named::untold" in found
    assert not any("both" in line for line in found if "macos" not in line)
    assert "maniple-sys: named::alone is in linux and not in macos" not in found
