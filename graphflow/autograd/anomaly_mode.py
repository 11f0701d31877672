"""Finding where NaN came from, by the address that scripts import it from."""

from graphflow.autograd.anomaly import detect_anomaly, set_detect_anomaly

__all__ = ["detect_anomaly", "set_detect_anomaly"]
