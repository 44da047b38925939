// PTX on the current device, through the CUDA driver that is found when it is needed: nothing is linked.
#pragma once
#include <cuda.h>

#include <map>
#include <string>
#include <vector>

namespace fastprompt::tensorrt {

// Kernels of some modules, in the context that was current when they were loaded. std::runtime_error: what the driver
// says. Loading compiles, so it is done before a stream is captured.
class Modules {
 public:
  explicit Modules(const std::vector<std::string>& ptx);
  ~Modules();
  Modules(const Modules&) = delete;
  Modules& operator=(const Modules&) = delete;

  void launch(const std::string& kernel, const unsigned (&grid)[3], unsigned threads, unsigned shared, void** arguments,
              CUstream stream);

 private:
  CUfunction function(const std::string& kernel, unsigned shared);
  std::vector<CUmodule> modules_;
  std::map<std::string, CUfunction> functions_;
};

}  // namespace fastprompt::tensorrt
