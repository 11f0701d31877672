"""Where the time goes: ``gf.profile()`` and ``program.profile(*args)``."""
