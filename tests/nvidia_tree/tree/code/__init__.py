# ruff: noqa: A005 - as in NVIDIA's tree, whose config files import it.
"""Names that config files import, and the program. It hides the standard library's `code`, as the real one does."""
