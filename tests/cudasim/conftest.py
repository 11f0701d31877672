"""All parts see three devices, whichever of them a process runs: the simulator counts once."""

import os

from graphflow.codegen.cuda.toolchain import is_simulated

if is_simulated():
    os.environ["CUDA_VISIBLE_DEVICES"] = "0,1,2"
