/* Our nodes for hosts that are compiled elsewhere: OpenVINO's extension, Python's ctypes. Plain C, found by dlopen in
 * the library that also serves ONNX Runtime. Only grows: a host looks functions up by name. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __GNUC__
#define FASTPROMPT_API __attribute__((visibility("default")))
#else
#define FASTPROMPT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { FASTPROMPT_ERROR_SIZE = 512 };

/* A tensor of a node: ONNX's number of the type; axes -1 where the rank, sizes -1 where an axis is not known. */
struct fastprompt_tensor {
  void* data;
  int32_t type;
  int32_t axes;
  int64_t sizes[8];
};

/* What a node asks of its host while it runs. Functions return 0, or anything else where the host has failed. */
struct fastprompt_host {
  void* self;
  int32_t inputs;
  int32_t threads;
  int32_t (*input)(void* self, int32_t n, struct fastprompt_tensor* found);
  /* With axes and sizes given: allocates, and fills in data and type. */
  int32_t (*output)(void* self, int32_t n, struct fastprompt_tensor* wanted);
  /* task(of, k) for every k < tasks on the threads of the host; null: on our own. */
  int32_t (*parallel)(void* self, size_t tasks, void (*task)(void*, size_t), void* of);
};

/* Of operator n; null behind the last. */
FASTPROMPT_API const char* fastprompt_node_name(int32_t n);

/* One node, and what it keeps from call to call. Null: there is no operator of that name. May be run by several threads
 * at a time, and must not be changed then. */
struct fastprompt_node;
FASTPROMPT_API struct fastprompt_node* fastprompt_node_new(const char* name);
FASTPROMPT_API void fastprompt_node_delete(struct fastprompt_node* node);

/* Attributes, before the first run; a number is a list of one. */
FASTPROMPT_API void fastprompt_node_ints(struct fastprompt_node* node, const char* name, const int64_t* values,
                                         int32_t count);
FASTPROMPT_API void fastprompt_node_floats(struct fastprompt_node* node, const char* name, const float* values,
                                           int32_t count);
FASTPROMPT_API void fastprompt_node_text(struct fastprompt_node* node, const char* name, const char* value);

/* Names and letters of attributes, as in "size:I scale:f": i int, f float, s text, I ints, F floats. */
FASTPROMPT_API const char* fastprompt_node_attributes(const struct fastprompt_node* node);

/* A letter for each: T one float type for all, f float32, i int64, u uint8, a any; "T+": one or more. */
FASTPROMPT_API const char* fastprompt_node_input_types(const struct fastprompt_node* node);
FASTPROMPT_API const char* fastprompt_node_output_types(const struct fastprompt_node* node);

/* Types and shapes of the outputs, as far as those of the inputs are known; the number of outputs, or -1. */
FASTPROMPT_API int32_t fastprompt_node_outputs(struct fastprompt_node* node, const struct fastprompt_tensor* inputs,
                                               int32_t count, struct fastprompt_tensor* outputs, char* error);
/* 0, or -1 with a text in error[FASTPROMPT_ERROR_SIZE]. */
FASTPROMPT_API int32_t fastprompt_node_run(struct fastprompt_node* node, const struct fastprompt_host* host,
                                           char* error);

#ifdef __cplusplus
}
#endif
