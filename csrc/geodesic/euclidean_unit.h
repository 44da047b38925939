// The unit in which the squares of distances are added, on the CPU and on a GPU.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace fastprompt {

// The spacing in a unit (returned) in which the longest possible distance is about 2^60: its square does not overflow,
// and a pixel size 2^120 times smaller still has one. z, y, x.
inline double euclidean_unit(const double spacing[3], const int64_t sizes[3], double scaled[3]) {
  double longest = std::numeric_limits<double>::min();
  for (int k = 0; k < 3; ++k) longest = std::max(longest, spacing[k] * (sizes[k] - 1));
  const int e = std::isinf(longest) ? -127 : std::clamp(60 - std::ilogb(longest), -127, 126);
  for (int k = 0; k < 3; ++k) scaled[k] = std::ldexp(spacing[k], e);
  return std::ldexp(1.0, -e);
}

}  // namespace fastprompt
