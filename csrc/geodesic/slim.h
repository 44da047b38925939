// The scans of geodesic.h for pictures and volumes that are thinner than a vector: in place, pixel by pixel. The blocks
// of the others pad every row to whole vectors, which took a hundred times the memory of the result here.
#pragma once
#include "geodesic/geodesic.h"

namespace fastprompt {

// Whether the padding of the other solver would take more than the pixels do, and of how many that is worth a thought.
bool is_slim(const Geodesic& args);

// The same bits as geodesic_raster and geodesic_toivanen.
void slim_scan(const Geodesic& args, int64_t b, int64_t set, int count);

}  // namespace fastprompt
