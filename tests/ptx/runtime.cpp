// What a launcher of csrc/ asks of the CUDA runtime, for tests without a GPU: tells tests/ptx/launcher.py of every
// launch, in place of the library of that name.
#include <cstddef>
#include <map>
#include <string>

struct dim3 {
  unsigned x, y, z;
};
using Error = int;
using Stream = void*;
using Told = void (*)(const char* kernel, const unsigned* grid, const unsigned* block, void** arguments);

namespace {

Told told;
int processors;
// Of kernels; the constructors of other files fill it.
std::map<const void*, std::string>& names() {
  static std::map<const void*, std::string> all;
  return all;
}
struct {
  dim3 grid, block;
} configured;

Error launched(const void* kernel, dim3 grid, dim3 block, void** arguments) {
  told(names().at(kernel).c_str(), &grid.x, &block.x, arguments);
  return 0;
}

}  // namespace

extern "C" {

// The device has so many multiprocessors with room for one block each.
void listen(Told function, int blocks) { told = function, processors = blocks; }

Error cudaGetDevice(int* device) { return *device = 0; }
Error cudaDeviceGetAttribute(int* value, int, int) { return *value = processors, 0; }
Error cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t, unsigned) {
  return *blocks = 1, 0;
}
Error cudaGetLastError() { return 0; }
const char* cudaGetErrorName(Error) { return ""; }
const char* cudaGetErrorString(Error) { return ""; }
Error cudaMemsetAsync(void* memory, int value, size_t bytes, Stream) {
  void* arguments[] = {&memory, &value, &bytes};
  const dim3 one{1, 1, 1};
  return told("memset", &one.x, &one.x, arguments), 0;
}
Error cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, size_t, Stream) {
  return launched(kernel, grid, block, arguments);
}
Error cudaLaunchCooperativeKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, size_t, Stream) {
  if (grid.x * grid.y * grid.z > unsigned(processors)) return 1;
  return launched(kernel, grid, block, arguments);
}

// kernel<<<grid, block>>>(...), as nvcc writes it.
void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterFunction(void**, const char* kernel, char*, const char* name, int, void*, void*, void*, void*,
                            int*) {
  names()[kernel] = name;
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t, Stream) { return configured = {grid, block}, 0; }
Error __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = configured.grid, *block = configured.block, *shared = 0, *static_cast<Stream*>(stream) = nullptr;
  return 0;
}
Error __cudaGetKernel(const void** kernel, const void* function) { return *kernel = function, 0; }
Error __cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, size_t, Stream) {
  return launched(kernel, grid, block, arguments);
}
}
