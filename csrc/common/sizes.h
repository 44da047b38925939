// Sizes that come from files and callers: products that do not overflow unseen.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <stdexcept>

namespace fastprompt {

// Of an attribute or an option that is a size: products of two fit into 64 bits.
constexpr int64_t kLargestSize = (int64_t{1} << 31) - 1;

// Of the elements of an array whose empty axes count as one long: what a kernel makes of its axes, some 16 padded rows
// for each, still fits. An empty array may have any other axes, and their product is computed all the same.
constexpr int64_t kMostElements = int64_t{1} << 48;

// The product, or an error.
inline int64_t product(std::initializer_list<int64_t> factors) {
  int64_t found = 1;
  for (const int64_t n : factors)
    if (n < 0 || __builtin_mul_overflow(found, n, &found))
      throw std::invalid_argument("sizes are negative or too large");
  return found;
}

// Whether an array may have these axes.
inline bool has_fair_sizes(const int64_t* sizes, int64_t axes) {
  int64_t found = 1;
  for (int64_t k = 0; k < axes; ++k)
    if (sizes[k] < 0 || __builtin_mul_overflow(found, sizes[k] ? sizes[k] : 1, &found) || found > kMostElements)
      return false;
  return true;
}

// One rule of a kernel's numbers, for all doors: Python's, the nodes', the plugins'.
inline void need(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

}  // namespace fastprompt
