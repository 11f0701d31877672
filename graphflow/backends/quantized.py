"""Which library multiplies small integers: GraphFlow's kernels, whatever is set."""

engine = "x86"
supported_engines = ["x86", "fbgemm", "qnnpack", "onednn"]
