"""What runs inside a run's pod. `wrapper` travels there in a ConfigMap; everything else here is in our image."""
