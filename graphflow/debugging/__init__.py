"""Finding what is wrong: ``gf.verify``, ``gf.nan_guard``, ``gf.print``, ``gf.breakpoint``."""
