"""A small CPU benchmark under NVIDIA's make contract: MLCommons' LoadGen with a real model."""
