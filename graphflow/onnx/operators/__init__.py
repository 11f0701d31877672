"""The ONNX operators, by subject, and the table that they stand in."""
