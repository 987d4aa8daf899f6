"""The module names that config files written for NVIDIA's tree import; the code itself is in harness/."""
