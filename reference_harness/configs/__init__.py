"""Configs of the tree, a folder for each benchmark and scenario."""
