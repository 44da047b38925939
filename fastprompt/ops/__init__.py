"""Public functions, one module per operator family."""

from fastprompt.ops import attention as _attention
from fastprompt.ops import box_maps as _box_maps
from fastprompt.ops import clicks as _clicks
from fastprompt.ops import composing as _composing
from fastprompt.ops import conditioning as _conditioning
from fastprompt.ops import euclidean as _euclidean
from fastprompt.ops import geodesic as _geodesic
from fastprompt.ops import guidance as _guidance_maps
from fastprompt.ops import masks as _masks
from fastprompt.ops import memory as _memory
from fastprompt.ops import merging as _merging
from fastprompt.ops import pixel_words as _pixel_words
from fastprompt.ops import pooling as _pooling
from fastprompt.ops import prior as _prior
from fastprompt.ops import prompt_vectors as _prompt_vectors
from fastprompt.ops import pruning as _pruning
from fastprompt.ops import regions as _regions
from fastprompt.ops import relative_position as _relative_position
from fastprompt.ops import rle as _rle
from fastprompt.ops import scoring as _scoring
from fastprompt.ops import similarity as _similarity
from fastprompt.ops import strokes as _strokes
from fastprompt.ops.attention import *
from fastprompt.ops.box_maps import *
from fastprompt.ops.clicks import *
from fastprompt.ops.composing import *
from fastprompt.ops.conditioning import *
from fastprompt.ops.euclidean import *
from fastprompt.ops.geodesic import *
from fastprompt.ops.guidance import *
from fastprompt.ops.masks import *
from fastprompt.ops.memory import *
from fastprompt.ops.merging import *
from fastprompt.ops.pixel_words import *
from fastprompt.ops.pooling import *
from fastprompt.ops.prior import *
from fastprompt.ops.prompt_vectors import *
from fastprompt.ops.pruning import *
from fastprompt.ops.regions import *
from fastprompt.ops.relative_position import *
from fastprompt.ops.rle import *
from fastprompt.ops.scoring import *
from fastprompt.ops.similarity import *
from fastprompt.ops.strokes import *

__all__: list[str] = []
__all__ += _attention.__all__
__all__ += _box_maps.__all__
__all__ += _clicks.__all__
__all__ += _composing.__all__
__all__ += _conditioning.__all__
__all__ += _euclidean.__all__
__all__ += _geodesic.__all__
__all__ += _guidance_maps.__all__
__all__ += _masks.__all__
__all__ += _memory.__all__
__all__ += _merging.__all__
__all__ += _pixel_words.__all__
__all__ += _pooling.__all__
__all__ += _prior.__all__
__all__ += _prompt_vectors.__all__
__all__ += _pruning.__all__
__all__ += _regions.__all__
__all__ += _relative_position.__all__
__all__ += _rle.__all__
__all__ += _scoring.__all__
__all__ += _similarity.__all__
__all__ += _strokes.__all__
