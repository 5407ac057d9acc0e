"""Descartes-fast as its users run it: a server in a process of its own, the public client."""
