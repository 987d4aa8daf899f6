"""The two ways in which a command of the local cluster can end badly."""


class RefusalError(Exception):
    """The machine or the request does not allow it (exit code 2); no process was started or stopped."""


class ClusterError(Exception):
    """Something that should work did not (exit code 1)."""
