"""The server: one file for each of its jobs; :mod:`.server` joins them."""
