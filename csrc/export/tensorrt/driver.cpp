#include "export/tensorrt/driver.h"

#include <dlfcn.h>

#include <stdexcept>

namespace fastprompt::tensorrt {
namespace {

constexpr unsigned kWithoutAsking = 48 << 10;  // bytes of shared memory

template <class Function>
void look_up(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (!function) throw std::runtime_error(std::string("the CUDA driver has no ") + name);
}

struct Driver {
  CUresult (*load)(CUmodule*, const void*);
  CUresult (*unload)(CUmodule);
  CUresult (*find)(CUfunction*, CUmodule, const char*);
  CUresult (*set_attribute)(CUfunction, CUfunction_attribute, int);
  CUresult (*launch)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void**,
                     void**);
  CUresult (*name_of)(CUresult, const char**);

  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) throw std::runtime_error("there is no CUDA driver (libcuda.so.1)");
    look_up(library, "cuModuleLoadData", load);
    look_up(library, "cuModuleUnload", unload);
    look_up(library, "cuModuleGetFunction", find);
    look_up(library, "cuFuncSetAttribute", set_attribute);
    look_up(library, "cuLaunchKernel", launch);
    look_up(library, "cuGetErrorName", name_of);
  }

  void check(CUresult result, const std::string& what) const {
    const char* name = "unknown error";
    if (result != CUDA_SUCCESS && name_of(result, &name) == CUDA_SUCCESS) {
    }
    if (result != CUDA_SUCCESS) throw std::runtime_error(what + ": " + name);
  }
};

const Driver& driver() {
  static const Driver found;
  return found;
}

}  // namespace

Modules::Modules(const std::vector<std::string>& ptx) {
  for (const std::string& text : ptx) {
    CUmodule module = nullptr;
    driver().check(driver().load(&module, text.c_str()), "cuModuleLoadData");
    modules_.push_back(module);
  }
}

Modules::~Modules() {
  for (CUmodule module : modules_) driver().unload(module);  // nobody could be told of an error here
}

CUfunction Modules::function(const std::string& kernel, unsigned shared) {
  const auto known = functions_.find(kernel);
  if (known != functions_.end()) return known->second;
  CUfunction found = nullptr;
  CUresult result = CUDA_ERROR_NOT_FOUND;
  for (CUmodule module : modules_)
    if ((result = driver().find(&found, module, kernel.c_str())) == CUDA_SUCCESS) break;
  driver().check(result, "the PTX has no kernel " + kernel);
  if (shared > kWithoutAsking)
    driver().check(driver().set_attribute(found, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, int(shared)),
                   kernel + " needs more shared memory than this device has");
  return functions_[kernel] = found;
}

void Modules::launch(const std::string& kernel, const unsigned (&grid)[3], unsigned threads, unsigned shared,
                     void** arguments, CUstream stream) {
  const CUresult result = driver().launch(function(kernel, shared), grid[0], grid[1], grid[2], threads, 1, 1, shared,
                                          stream, arguments, nullptr);
  driver().check(result, kernel);
}

}  // namespace fastprompt::tensorrt
