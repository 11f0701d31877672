"""Kernels for 64-bit ARM, compiled and executed on another machine: see README.md."""

LINUX = "aarch64-unknown-linux-gnu:neoverse-n1:+dotprod"
MACOS = "arm64-apple-macosx11.0:apple-m1"
