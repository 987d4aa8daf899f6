"""The configs of the tree itself, in packages by benchmark and scenario."""
