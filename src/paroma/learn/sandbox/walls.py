"""Which walls stand around a worker: what `doctor` lists and what the policy asks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wall:
    """One wall, whether it stands, and what the machine said."""

    name: str
    there: bool
    why: str
    required: bool = True  # without it nothing runs; without the others the policy decides


NAMES = ("namespaces", "identity", "capabilities", "rlimits", "landlock", "seccomp", "cgroup")
