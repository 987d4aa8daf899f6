"""Names that config files import."""

from harness.systems import KnownSystem, SystemConfiguration

__all__ = ["KnownSystem", "SystemConfiguration"]
