#pragma once
#include <cstddef>
#include <cstdint>

namespace fastprompt {

// A number made of some of the bytes of a block of memory: of all where it has at most `lines` cache lines, else of so
// many of them, as far apart from each other. Their distance is odd, so that they lie in all columns of a picture.
uint64_t sample(const void* data, std::size_t bytes, std::size_t lines);

}  // namespace fastprompt
