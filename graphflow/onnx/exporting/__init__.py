"""How graphs become ONNX: primitives, and functions that have an operator of their own."""
