"""What the stand-in of NVIDIA's tree does; `code` and `configs` beside it have the names that config files import."""
