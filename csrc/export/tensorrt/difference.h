// The signed distance out of the distances to a map and to its complement.
#pragma once
#include <cstdint>

namespace fastprompt::tensorrt {

// both: (maps, 2, pixels); out: (maps, pixels), count = maps * pixels numbers. +inf where neither side is reached.
// One launch on `stream`; throws std::runtime_error where CUDA reports an error.
void signed_difference(const float* both, float* out, int64_t count, int64_t pixels, void* stream);

}  // namespace fastprompt::tensorrt
