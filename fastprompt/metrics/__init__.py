"""Metrics of promptable segmentation: of one mask, of a data set, and accumulators that merge across processes."""

from fastprompt.metrics import classes as _classes
from fastprompt.metrics import clicks as _clicks
from fastprompt.metrics import masks as _masks
from fastprompt.metrics import referring as _referring
from fastprompt.metrics._counts import Overlap, overlap
from fastprompt.metrics.classes import *
from fastprompt.metrics.clicks import *
from fastprompt.metrics.masks import *
from fastprompt.metrics.referring import *

__all__ = ["Overlap", "overlap"]
__all__ += _classes.__all__
__all__ += _clicks.__all__
__all__ += _masks.__all__
__all__ += _referring.__all__
