#pragma once
#include "bind.h"
#include "geodesic/geodesic.h"

namespace fastprompt {

// The fields of Geodesic, in their order; fastprompt/ops/geodesic.py:arguments has the same list, and `out` follows it.
Geodesic geodesic_fields(const py::args& fields);

}  // namespace fastprompt
