// In the place of libcuda.so.1: keeps the modules and prints the launches, and runs nothing.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {

struct Module {
  std::string ptx;
};
struct Function {
  std::string name;
  std::vector<char> sizes;  // of the parameters, in bytes
};

constexpr int kNotFound = 500;

Function described(const std::string& ptx, const std::string& name) {
  Function f{name, {}};
  const size_t begin = ptx.find(".entry " + name + "("), end = ptx.find(")\n", begin);
  for (size_t at = begin; (at = ptx.find(".param .", at)) != std::string::npos && at < end; ++at)
    f.sizes.push_back(ptx.compare(at + 8, 3, "u64") == 0 || ptx.compare(at + 8, 3, "b64") == 0 ? 8 : 4);
  return f;
}

}  // namespace

extern "C" {

int cuModuleLoadData(void** module, const void* image) {
  *module = new Module{static_cast<const char*>(image)};
  std::printf("module\n");
  return 0;
}
int cuModuleUnload(void* module) {
  delete static_cast<Module*>(module);
  return 0;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  const std::string& ptx = static_cast<Module*>(module)->ptx;
  if (ptx.find(std::string(".entry ") + name + "(") == std::string::npos) return kNotFound;
  static std::vector<Function*> all;  // freed with the process
  *function = all.emplace_back(new Function(described(ptx, name)));
  return 0;
}
int cuFuncSetAttribute(void*, int, int value) {
  std::printf("shared memory %d\n", value);
  return 0;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void*, void** arguments, void**) {
  const auto* f = static_cast<const Function*>(function);
  std::printf("launch %s %u %u %u %u %u", f->name.c_str(), gx, gy, gz, bx * by * bz, shared);
  for (size_t n = 0; n < f->sizes.size(); ++n) {
    uint64_t value = 0;
    std::memcpy(&value, arguments[n], f->sizes[n]);
    std::printf(" %llu", static_cast<unsigned long long>(value));
  }
  std::printf("\n");
  return 0;
}
int cuGetErrorName(int, const char** name) {
  *name = "CUDA_ERROR_NOT_FOUND";
  return 0;
}

}  // extern "C"
