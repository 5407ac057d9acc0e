"""What the codec promises, as data, and whether a run of the benchmark keeps it."""

from __future__ import annotations

import statistics

OURS = "descartes-fast"
PEER = "msgspec"
# msgspec with strings for enums and bytes for ids: it checks and makes less, and is faster.
PLAIN = "msgspec-plain"
# It wins by far, and would only flatter the means.
NOT_IN_MEANS = "log_message"

# Nanoseconds by operation, message and library.
Times = dict[tuple[str, str, str], float]

# How many times as long as ours msgspec takes at least, in the geometric mean.
MEANS = {"decode": 2.0, "encode": 1.5, "decode and read all": 1.3}
# Nanoseconds that rmp-serde 1.1 and, beside it in one run on one x86-64 machine, msgspec-plain
# took to decode a message of this kind. rmp-serde is not at hand where this runs, msgspec is:
# its time here tells what rmp-serde's would be.
RMP_SERDE_BESIDE_MSGSPEC = {
    "control_command": (167, 129),
    "status_update": (293, 289),
    "spawn_request": (846, 912),
}


def means(times: Times) -> dict[str, float]:
    """Return the geometric mean of the ratios to msgspec, by operation."""
    found: dict[str, list[float]] = {}
    for operation, message, library in times:
        if library == OURS and message != NOT_IN_MEANS:
            found.setdefault(operation, []).append(ratio(times, operation, message))
    return {operation: statistics.geometric_mean(ratios) for operation, ratios in found.items()}


def ratio(times: Times, operation: str, message: str) -> float:
    """Return how many times as long as ours msgspec takes."""
    return times[operation, message, PEER] / times[operation, message, OURS]


def rmp_serde_decode_ns(times: Times, message: str) -> float:
    """Return what rmp-serde would take here to decode a message."""
    theirs, beside = RMP_SERDE_BESIDE_MSGSPEC[message]
    return times["decode", message, PLAIN] * theirs / beside


def missed(times: Times) -> list[str]:
    """Return what a run does not keep, in words."""
    words = []
    for operation, mean in means(times).items():
        if mean < MEANS.get(operation, 1):
            words.append(f"{operation}: {mean:.2f} times msgspec's speed, not {MEANS[operation]}")
    for operation, message, library in times:
        if library == OURS and ratio(times, operation, message) < 1:
            words.append(f"{operation} {message}: slower than msgspec")
    for message in RMP_SERDE_BESIDE_MSGSPEC:
        ours = times["decode", message, OURS]
        theirs = rmp_serde_decode_ns(times, message)
        if ours > theirs:
            words.append(f"decode {message}: {ours:.0f} ns, where rmp-serde takes {theirs:.0f}")
    return words


def summary(times: Times) -> str:
    """Return the figures that are held against the targets."""
    lines = []
    for operation, mean in means(times).items():
        ratios = {
            message: ratio(times, operation, message)
            for measured, message, library in times
            if measured == operation and library == OURS
        }
        least = min(ratios, key=lambda message: ratios[message])
        target = f"at least {MEANS[operation]:.1f}" if operation in MEANS else "no target"
        lines.append(
            f"{operation:<20} {mean:>6.2f} x msgspec ({target}), "
            f"least {ratios[least]:.2f} ({least})"
        )
    lines += [
        f"decode {message:<16} {times['decode', message, OURS]:>4.0f} ns, rmp-serde scaled "
        f"{rmp_serde_decode_ns(times, message):>4.0f} ns"
        for message in RMP_SERDE_BESIDE_MSGSPEC
    ]
    return "\n".join(lines)
