#pragma once
#include "geodesic/cuda.h"

namespace fastprompt {

// geodesic_raster_cuda of volumes: one memset and one cooperative launch.
int64_t geodesic_raster_volume_cuda_workspace(const GeodesicCuda& args);  // ints
void geodesic_raster_volume_cuda(const GeodesicCuda& args, void* stream);

}  // namespace fastprompt
