"""The keeper under coverage: a program that measures it and is started in its place.

The keeper runs without site-packages (``-I -S``), so coverage's own way into subprocesses, a
``.pth`` file, does not reach it. Where a test run is measured, the server's end of it
starts this program by its path instead.
"""

from __future__ import annotations

from pathlib import Path

_PROGRAM = """\
import runpy
import sys

sys.path.append({packages!r})
import coverage

measuring = coverage.Coverage(
    data_file={data_file!r}, data_suffix=True, config_file=False, include=[{folder!r} + "/*"]
)
measuring.start()
try:
    runpy.run_path({folder!r} + "/__main__.py", run_name="__main__")
finally:
    measuring.stop()
    measuring.save()
"""


def write_measured_keeper(path: Path) -> bool:
    """Write to ``path`` a program that runs and measures a keeper; tell if anybody measures."""
    try:
        import coverage
    except ImportError:
        return False
    measuring = coverage.Coverage.current()
    if measuring is None:
        return False
    import descartes_fast

    program = _PROGRAM.format(
        packages=str(Path(coverage.__file__).parents[1]),
        data_file=str(Path(measuring.config.data_file).absolute()),
        folder=str(Path(descartes_fast.__file__).parent / "server" / "keeper"),
    )
    path.write_text(program)
    return True
