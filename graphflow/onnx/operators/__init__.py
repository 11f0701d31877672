"""The ONNX operators, by subject: importing this package fills the table."""

from graphflow.onnx.operators import (
    activations,
    control,
    elementwise,
    images,
    indexing,
    linear,
    networks,
    normalization,
    quantization,
    recurrent,
    reductions,
    sequences,
    shaping,
    signal,
    values,
)
