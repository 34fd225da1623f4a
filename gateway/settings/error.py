"""What is wrong with a setting."""


class SettingsError(Exception):
    """A setting is not usable. The message names it, where it came from and what was expected."""
