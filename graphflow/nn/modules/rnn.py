"""Recurrent layers and cells, by the address that scripts import them from."""

from graphflow.nn.modules.recurrent import GRU, LSTM, RNN, RNNBase
from graphflow.nn.modules.recurrent_cells import GRUCell, LSTMCell, RNNCell, RNNCellBase

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]
