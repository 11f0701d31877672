"""Weights from an address, by the name that older scripts import it from."""

from graphflow.hub import load_state_dict_from_url as load_url

__all__ = ["load_url"]
