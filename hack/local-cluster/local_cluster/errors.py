"""The two ways in which a command of the local cluster can end badly."""


class RefusalError(Exception):
    """The machine or the request does not allow it; nothing was changed (exit code 2)."""


class ClusterError(Exception):
    """Something that should work did not (exit code 1)."""
