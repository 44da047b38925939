// What we use of ONNX Runtime's C interface, declared by us: its headers come with no package that a build could ask
// for. The interface is a table of functions that only grows, so a place in it, once given, stays.
#pragma once
#include <cstddef>
#include <cstdint>

namespace fastprompt::ort {

constexpr uint32_t kApiVersion = 17;  // of 1.17, the first with ParallelFor

struct Status;
struct KernelInfo;
struct KernelContext;
struct Value;
struct Shape;
struct Domain;
struct SessionOptions;

using Api = void* const;  // the table: an array of functions

template <class Signature>
Signature* at(const Api* api, size_t place) {
  return reinterpret_cast<Signature*>(api[place]);
}

// name, place, result, arguments
#define FP_ORT(name, place, result, ...)                  \
  template <class... Given>                               \
  result name(const Api* api, Given... given) {           \
    return at<result(__VA_ARGS__)>(api, place)(given...); \
  }
FP_ORT(create_status, 0, Status*, int code, const char* text)
FP_ORT(error_message, 2, const char*, const Status*)
FP_ORT(create_domain, 26, Status*, const char* name, Domain** out)
FP_ORT(add_to_domain, 27, Status*, Domain*, const void* op)
FP_ORT(add_domain, 28, Status*, SessionOptions*, Domain*)
FP_ORT(tensor_data, 51, Status*, Value*, void** out)
FP_ORT(element_type, 60, Status*, const Shape*, int* out)
FP_ORT(axes, 61, Status*, const Shape*, size_t* out)
FP_ORT(sizes, 62, Status*, const Shape*, int64_t* out, size_t count)
FP_ORT(type_and_shape, 65, Status*, const Value*, Shape** out)
FP_ORT(attribute_float, 85, Status*, const KernelInfo*, const char* name, float* out)
FP_ORT(attribute_int, 86, Status*, const KernelInfo*, const char* name, int64_t* out)
FP_ORT(attribute_string, 87, Status*, const KernelInfo*, const char* name, char* out, size_t* size)
FP_ORT(input_count, 88, Status*, const KernelContext*, size_t* out)
FP_ORT(input, 90, Status*, const KernelContext*, size_t place, const Value** out)
FP_ORT(output, 91, Status*, KernelContext*, size_t place, const int64_t* sizes, size_t axes, Value** out)
FP_ORT(release_status, 93, void, Status*)
FP_ORT(release_shape, 99, void, Shape*)
FP_ORT(attribute_floats, 162, Status*, const KernelInfo*, const char* name, float* out, size_t* size)
FP_ORT(attribute_ints, 163, Status*, const KernelInfo*, const char* name, int64_t* out, size_t* size)
FP_ORT(parallel_for, 274, Status*, const KernelContext*, void (*task)(void*, size_t), size_t count, size_t batches,
       void* context)
#undef FP_ORT

struct ApiBase {
  const Api* (*get_api)(uint32_t version);
  const char* (*version)();
};

// An operator as the runtime sees it, as of version 17; our own fields may follow.
struct CustomOp {
  uint32_t version;
  void* (*create_kernel)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*name)(const CustomOp*);
  const char* (*provider)(const CustomOp*);
  int (*input_type)(const CustomOp*, size_t);
  size_t (*input_count)(const CustomOp*);
  int (*output_type)(const CustomOp*, size_t);
  size_t (*output_count)(const CustomOp*);
  void (*compute)(void* kernel, KernelContext*);
  void (*destroy_kernel)(void* kernel);
  int (*input_characteristic)(const CustomOp*, size_t);  // 0 required, 1 optional, 2 variadic
  int (*output_characteristic)(const CustomOp*, size_t);
  int (*input_memory)(const CustomOp*, size_t);
  int (*variadic_input_min)(const CustomOp*);
  int (*variadic_input_homogeneous)(const CustomOp*);
  int (*variadic_output_min)(const CustomOp*);
  int (*variadic_output_homogeneous)(const CustomOp*);
  Status* (*create_kernel_v2)(const CustomOp*, const Api*, const KernelInfo*, void** kernel);
  Status* (*compute_v2)(void* kernel, KernelContext*);
  Status* (*infer_shape)(const CustomOp*, void*);
  int (*start_version)(const CustomOp*);
  int (*end_version)(const CustomOp*);
};

}  // namespace fastprompt::ort
