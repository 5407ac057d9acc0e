"""The keeper: the small process that owns the agents, their exit codes and their pipes.

It is started as ``python -I -S .../keeper/__main__.py`` and imports nothing but the
standard library and its siblings in this folder: its heap stays small, so starting a
process stays cheap, and no bug of the server can take the agents with it. One thread,
one loop. The server reaches it through :mod:`descartes_fast.server.keeper_link`.
"""
