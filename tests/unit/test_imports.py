"""The direction of imports, and the public names."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import descartes_fast

_ROOT = Path(descartes_fast.__file__).parent
_MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(_ROOT)], "descartes_fast.")
    if not module.name.endswith("__main__")
)


def _source(module: str) -> Path | None:
    path = _ROOT.joinpath(*module.split(".")[1:])
    for candidate in (path / "__init__.py", path.with_suffix(".py"), path.with_suffix(".pyx")):
        if candidate.exists():
            return candidate
    return None


def _imports(module: str) -> set[str]:
    """Return the modules of ours that a module's source names, also within its functions."""
    path = _source(module)
    if path is None or path.suffix != ".py":
        return set()
    package = module.split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return {name for name in found if name.split(".")[0] == "descartes_fast"}


def _reached(module: str) -> set[str]:
    """Return the modules of ours that importing a module leads to, by their sources.

    The package itself does not count: importing it is importing every public name.
    """
    seen: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        if name in seen or name not in _MODULES:
            continue
        seen.add(name)
        waiting |= _imports(name)
    return seen - {module}


def _below(*packages: str) -> set[str]:
    return {
        module
        for module in _MODULES
        if any(module == package or module.startswith(f"{package}.") for package in packages)
    }


_CLIENT = {
    f"descartes_fast.{name}"
    for name in (
        "calls",
        "client",
        "connection",
        "feed",
        "logs",
        "requests",
        "runner",
        "status",
        "subscription",
        "sync",
    )
}


def test_client_never_reaches_server() -> None:
    server = _below("descartes_fast.server")
    assert len(server) > 5
    for module in _CLIENT:
        assert module in _MODULES
        assert not _reached(module) & server, module


def test_server_never_reaches_client() -> None:
    for module in _below("descartes_fast.server"):
        assert not _reached(module) & _CLIENT, module


def test_core_reaches_nothing_but_errors() -> None:
    core = _below("descartes_fast._core")
    assert core
    for module in core:
        assert _reached(module) - core <= {"descartes_fast.errors"}, module


def test_cython_sources_import_nothing_above_the_core_but_errors() -> None:
    ours = re.compile(r"(?:from|cimport|import)\s+(\.\.+\w*|descartes_fast[.\w]*)")
    allowed = {"..errors", "descartes_fast.errors"}
    for path in (_ROOT / "_core").glob("*.p[yx][xd]"):
        for name in ours.findall(path.read_text()):
            assert name in allowed or name.startswith("descartes_fast._core"), (path.name, name)


def test_errors_reach_nothing() -> None:
    assert _reached("descartes_fast.errors") == set()


def test_nothing_but_the_command_line_reaches_the_command_line() -> None:
    command_line = _below("descartes_fast.cli")
    for module in set(_MODULES) - command_line:
        assert not _reached(module) & command_line, module


def test_importing_the_package_loads_neither_server_nor_rich_nor_re2() -> None:
    program = "import sys, descartes_fast; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    unwanted = {"rich", "re2", "pytest", "uvloop"}
    assert not unwanted & set(loaded)
    assert not any(name.startswith("descartes_fast.server") for name in loaded)


def test_every_public_name_of_the_package_is_there_and_sorted_once() -> None:
    names = descartes_fast.__all__
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(descartes_fast, name) is not None, name
    public = {
        name
        for name, value in vars(descartes_fast).items()
        if not name.startswith("_") and not isinstance(value, type(sys)) and name != "annotations"
    }
    assert public <= set(names)


@pytest.mark.parametrize("module", _MODULES)
def test_every_name_in_all_is_there(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name), name
