"""Builds the Cython modules; everything else is in pyproject.toml."""

from __future__ import annotations

import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

SOURCES = Path("src")
NOT_ON_WINDOWS = {"front", "launcher", "targets"}  # of the server, which does not run there

extensions = [
    Extension(
        ".".join(source.relative_to(SOURCES).with_suffix("").parts),
        [str(source)],
        include_dirs=[str(SOURCES)],
    )
    for source in sorted(SOURCES.rglob("*.pyx"))
    if sys.platform != "win32" or source.stem not in NOT_ON_WINDOWS
]

setup(
    ext_modules=cythonize(
        extensions,
        # The generated C goes beside other build products, never into the tree or the sdist.
        build_dir="build/cython",
        include_path=["src"],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "embedsignature": True,
            "embedsignature.format": "clinic",
            "freethreading_compatible": True,
        },
    )
)
