"""What detectors and deep networks need beside layers, by torchvision's names."""

from graphflow.vision.ops.boxes import *
from graphflow.vision.ops.regions import *
