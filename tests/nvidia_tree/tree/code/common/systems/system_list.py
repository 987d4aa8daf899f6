"""Names that config files import."""

from standin.systems import KnownSystem, SystemConfiguration

__all__ = ["KnownSystem", "SystemConfiguration"]
