"""Layers of 8-bit integers that quantise what comes in by its own range."""

from graphflow.quantization.layers import DynamicLinear as Linear
from graphflow.quantization.recurrent import GRU, LSTM, GRUCell, LSTMCell, RNNCell

__all__ = ["GRU", "LSTM", "GRUCell", "LSTMCell", "Linear", "RNNCell"]
