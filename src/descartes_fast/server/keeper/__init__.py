"""The keeper: the small process that owns the agents, their exit codes and their pipes.

It is started as ``python -I -S .../keeper/__main__.py`` and imports nothing but the
standard library and its siblings in this folder (two of them compiled): it stays small, and no
bug of the server can take the agents with it. One loop in one thread; the process's first thread
starts the programs (:mod:`.launcher`), and for a second after a signal to hundreds a third one
helps (:mod:`.targets`).
The server reaches it through :mod:`descartes_fast.server.keeper_link`.

It outlives its server, replaces its own code in place, and takes over the agents of a
keeper that was killed. Read it in this order: :mod:`.protocol`, :mod:`.keeper`,
:mod:`.requests`, :mod:`.agents`, :mod:`.endings`, :mod:`.leader`, :mod:`.pump`,
:mod:`.output_pipe`, :mod:`.renewal`; the rest is what these stand on.

All of it needs Linux 5.3; what is lacking elsewhere:

- No child subreaper, no ``/proc`` (macOS): what an agent has put into another session is
  not found, and what outlives it goes to the first process.
- No pidfds (macOS, some sandboxes): exits are noticed at SIGCHLD. Agents of a keeper that
  was killed cannot be taken over, because an id alone does not say whose it is.
- No PIDFD_GET_INFO (before Linux 6.15): the exit code of an agent that was taken over is
  known only if its new parent has not reaped it when the keeper looks; else it is unknown.
- No memfds (macOS): of stdin, what an agent's pipe did not take yet goes with a keeper that is
  killed.
- No ``splice`` (macOS, some file systems): output passes through the keeper, and what it has
  read and not written when it is killed is lost, at most 64 KiB of each stream.
- No holes (some file systems): nothing is trimmed, so an agent waits at its limit.
- No SO_PEERCRED (macOS): connections are told by their user only, not by their process.
"""
