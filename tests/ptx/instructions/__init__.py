"""What each PTX instruction does: `TABLE[opcode](batch, active, instruction)`.

`batch` is the machine.Batch, `active` the indices of the threads that execute.
"""

from . import arithmetic, bits, control, conversion, matrix, transfer, warp
from .control import reduce_at_barrier
from .table import TABLE, bind
from .warp import warp_mask

__all__ = ["TABLE", "arithmetic", "bind", "bits", "control", "conversion", "matrix", "reduce_at_barrier"]
__all__ += ["transfer", "warp", "warp_mask"]
