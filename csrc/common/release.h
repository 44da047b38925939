#pragma once
#include <cstddef>

namespace fastprompt {

// Frees what all threads keep of their Scratch memory, those that are idle too. Returns the bytes.
std::size_t release_memory();

}  // namespace fastprompt
