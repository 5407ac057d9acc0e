"""What a user would otherwise write or take, run as its own documentation says."""
