// Euclidean distance of every pixel to the nearest seed of its image.
//   D(p) = min over seeds q of  |spacing * (p - q)|
#pragma once
#include <cstdint>

#include "common/isa.h"
#include "common/view.h"

namespace fastprompt {

struct EuclideanTransform {
  View mask;                  // (batch, 1, nz, ny, nx) uint8: non-zero = seed
  float* out;                 // (batch, nz, ny, nx), contiguous; +inf where the image has no seed
  int64_t batch, nz, ny, nx;  // a 2-D image has nz = 1
  double spacing[3];          // z, y, x, each > 0
  int threads;
};

void euclidean_distance_transform(const EuclideanTransform& args);

// What the steps share. They work on squares of distances in `unit`, a power of two: scaling rounds nothing.
// Only squares are added, and the least one taken: in float that costs at most 3.5 * 2^-24 of the distance, and
// nothing where the squares are integers below 2^24 (spacing 1 and 2896 x 2896 pixels).
struct EuclideanPlan {
  EuclideanTransform args;
  int64_t rows, bands;    // a plane (z) is cut into bands of `rows` rows; the last may have fewer
  float *above, *below;   // (batch * nz, bands, nx) pixels from the row before (after) a band up (down) to a seed;
                          // not there where a plane is one band
  float y_square;         // squared distance of two rows
  const float* x_square;  // x_square[k] = (k pixels in x)^2 for |k| <= nx + kEuclideanMargin
  const float* z_square;  // the same in z
  float unit;
};

constexpr int64_t kEuclideanMargin = 64;  // vectors read beyond a row

FP_DECLARE_ISA(void, euclidean_scan, (const EuclideanPlan& plan, int64_t plane, int64_t band))
FP_DECLARE_ISA(void, euclidean_band, (const EuclideanPlan& plan, int64_t plane, int64_t band))
FP_DECLARE_ISA(void, euclidean_depth, (const EuclideanPlan& plan, int64_t batch, int64_t y))

}  // namespace fastprompt
