"""A small CPU benchmark under NVIDIA's make contract: MLCommons' LoadGen with a real model."""

import os

# ONNX Runtime's Linux wheels report usage to Microsoft unless this is set before the first import (its Privacy.md).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
