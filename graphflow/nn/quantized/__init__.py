"""Layers of 8-bit integers at PyTorch's address; they are made by :mod:`graphflow.quantization`."""

from graphflow.nn.quantized import dynamic, functional
from graphflow.quantization.attention import MultiheadAttention
from graphflow.quantization.embeddings import Embedding, EmbeddingBag
from graphflow.quantization.functional_modules import FloatFunctional, QFunctional
from graphflow.quantization.layers import Conv1d, Conv2d, Conv3d, DeQuantStub, Linear, QuantStub
from graphflow.quantization.transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

FXFloatFunctional = FloatFunctional
Quantize, DeQuantize = QuantStub, DeQuantStub

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DeQuantize",
    "Embedding",
    "EmbeddingBag",
    "FXFloatFunctional",
    "FloatFunctional",
    "Linear",
    "MultiheadAttention",
    "QFunctional",
    "Quantize",
    "dynamic",
    "functional",
]
