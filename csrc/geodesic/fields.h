#pragma once
#include "bind.h"
#include "geodesic/geodesic.h"

namespace fastprompt {

Geodesic geodesic_fields(Fields& f);

}  // namespace fastprompt
