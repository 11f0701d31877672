"""What detectors and deep networks need beside layers, by torchvision's names."""

from graphflow.vision.ops.boxes import *
from graphflow.vision.ops.distances import *
from graphflow.vision.ops.feature_pyramid_network import (
    FeaturePyramidNetwork as FeaturePyramidNetwork,
)
from graphflow.vision.ops.misc import *
from graphflow.vision.ops.poolers import *
from graphflow.vision.ops.regions import *
