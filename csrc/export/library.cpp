// Our nodes behind a plain C interface: node_abi.h.
#include <cstring>

#include "common/parallel.h"
#include "export/node.h"
#include "export/node_abi.h"

using namespace fastprompt;

struct fastprompt_node {
  const Kernel* kernel;
  Attributes attributes;
  Memory memory;
};

namespace {

using Host = fastprompt_host;
using Tensor = fastprompt_tensor;

void ask(int32_t status) {
  if (status) throw std::runtime_error("the host has failed");
}

Sizes sizes_of(const Tensor& x) { return x.axes < 0 ? Sizes() : Sizes(x.sizes, x.sizes + x.axes); }

void set_sizes(Tensor* x, const Sizes& sizes) {
  need(sizes.size() <= 8, "a tensor has more than 8 axes");
  x->axes = static_cast<int32_t>(sizes.size());
  std::copy(sizes.begin(), sizes.end(), x->sizes);
}

class HostedNode : public Node {
 public:
  HostedNode(fastprompt_node& node, const Host& host) : Node(node.attributes, node.memory, host.threads), host_(host) {}
  size_t inputs() const override { return host_.inputs; }

 private:
  void* allocate(size_t n, const Sizes& shape, Type* type) override {
    Tensor x{};
    set_sizes(&x, shape);
    ask(host_.output(host_.self, static_cast<int32_t>(n), &x));
    *type = static_cast<Type>(x.type);
    return x.data;
  }
  Input read(size_t n) const override {
    need(n < inputs(), "an input is missing");
    Tensor x{};
    ask(host_.input(host_.self, static_cast<int32_t>(n), &x));
    return {x.data, static_cast<Type>(x.type), sizes_of(x)};
  }

  const Host& host_;
};

void on_threads_of_the_host(void* host, size_t tasks, void (*task)(void*, size_t), void* of) {
  const Host& h = *static_cast<const Host*>(host);
  ask(h.parallel(h.self, tasks, task, of));
}

template <class Body>
int32_t guarded(const fastprompt_node& node, char* error, Body body) {
  try {
    return body();
  } catch (const std::exception& e) {
    const std::string text = "fastprompt " + std::string(node.kernel->name) + ": " + e.what();
    std::strncpy(error, text.c_str(), FASTPROMPT_ERROR_SIZE - 1);
    error[FASTPROMPT_ERROR_SIZE - 1] = '\0';
    return -1;
  }
}

const std::vector<const Kernel*>& known_kernels() {
  static const std::vector<const Kernel*> found = all_kernels();
  return found;
}

int32_t run(fastprompt_node& node, const Host& host) {
  HostedNode running(node, host);
  if (host.parallel) {
    const UseThreadsOf theirs(on_threads_of_the_host, const_cast<Host*>(&host));
    node.kernel->run(running);
  } else {
    node.kernel->run(running);
  }
  running.finish();
  return 0;
}

}  // namespace

const char* fastprompt_node_name(int32_t n) {
  const auto& kernels = known_kernels();
  return n >= 0 && static_cast<size_t>(n) < kernels.size() ? kernels[n]->name : nullptr;
}

fastprompt_node* fastprompt_node_new(const char* name) {
  for (const Kernel* kernel : known_kernels())
    if (!std::strcmp(kernel->name, name)) return new fastprompt_node{kernel, {}, {}};
  return nullptr;
}

void fastprompt_node_delete(fastprompt_node* node) { delete node; }

void fastprompt_node_ints(fastprompt_node* node, const char* name, const int64_t* values, int32_t count) {
  node->attributes.int_lists[name] = Sizes(values, values + count);
  if (count == 1) node->attributes.ints[name] = values[0];
}

void fastprompt_node_floats(fastprompt_node* node, const char* name, const float* values, int32_t count) {
  node->attributes.float_lists[name] = std::vector<float>(values, values + count);
  if (count == 1) node->attributes.floats[name] = values[0];
}

void fastprompt_node_text(fastprompt_node* node, const char* name, const char* value) {
  node->attributes.texts[name] = value;
}

const char* fastprompt_node_attributes(const fastprompt_node* node) { return node->kernel->attributes; }

const char* fastprompt_node_input_types(const fastprompt_node* node) { return node->kernel->inputs; }

const char* fastprompt_node_output_types(const fastprompt_node* node) { return node->kernel->outputs; }

int32_t fastprompt_node_outputs(fastprompt_node* node, const Tensor* inputs, int32_t count, Tensor* outputs,
                                char* error) {
  return guarded(*node, error, [&] {
    Known known{{}, node->attributes};
    for (int32_t n = 0; n < count; ++n) known.inputs.push_back(sizes_of(inputs[n]));
    const std::vector<Sizes> found = node->kernel->shapes(known);
    for (size_t n = 0; n < found.size(); ++n) {
      const Type own = count ? static_cast<Type>(inputs[0].type) : Type::f32;
      outputs[n].data = nullptr, outputs[n].type = static_cast<int32_t>(type_of(node->kernel->outputs[n], own));
      set_sizes(&outputs[n], found[n]);
    }
    return static_cast<int32_t>(found.size());
  });
}

int32_t fastprompt_node_run(fastprompt_node* node, const Host* host, char* error) {
  return guarded(*node, error, [&] { return run(*node, *host); });
}
