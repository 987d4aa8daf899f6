"""Laying runs' artifacts out as MLCommons' submission checker expects, and saying what a submission still lacks."""
