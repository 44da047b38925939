#pragma once
#include <cstddef>

namespace fastprompt {

// Temporary memory of the calling thread, 2 MiB aligned, uninitialised. The thread keeps a few blocks for its next
// calls: a fresh allocation costs a page fault per 4 KiB, which was half the time of a geodesic sweep at 1024 x 1024.
class Scratch {
 public:
  explicit Scratch(std::size_t floats);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* data() const;  // not inline: see isa.h

 private:
  float* data_;
  std::size_t bytes_;
};

// Asks for huge pages under an array that is about to be written for the first time: 4 MB cost 2 page faults, not 1024.
void prefer_huge_pages(void* data, std::size_t bytes);

}  // namespace fastprompt
