"""A fleet without machines: a control plane and KWOK's nodes of eight GPUs, whose pods play a run. See README.md."""
