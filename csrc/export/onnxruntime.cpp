// Our kernels as custom operators of ONNX Runtime: one library, without Python, torch or a link to the runtime.
#include <deque>
#include <thread>

#include "common/parallel.h"
#include "export/node.h"
#include "export/onnxruntime_abi.h"

namespace fastprompt {
namespace {

const ort::Api* api = nullptr;

void check(ort::Status* status) {
  if (!status) return;
  const std::string text = ort::error_message(api, status);
  ort::release_status(api, status);
  throw std::runtime_error(text);
}

ort::Status* failure(const char* where, const char* what) {
  const std::string text = "fastprompt " + std::string(where) + ": " + what;
  return ort::create_status(api, 1, text.c_str());
}

constexpr Type kFloats[] = {Type::f32, Type::f16, Type::bf16, Type::f64};

// An operator for one float type; ONNX Runtime merges those of one name.
struct Op : ort::CustomOp {
  const Kernel* kernel;
  Type floats;
};

const Op& self(const ort::CustomOp* op) { return *static_cast<const Op*>(op); }

bool many(const Op& op) { return std::string(op.kernel->inputs).back() == '+'; }

size_t input_count(const Op& op) { return std::string(op.kernel->inputs).size() - many(op); }

int number_of(char letter, Type floats) { return letter == 'a' ? 0 : static_cast<int>(type_of(letter, floats)); }

// ---------------------------------------------------------------- a node

struct State {
  const Kernel* kernel;
  Attributes attributes;
  Memory memory;
};

template <class T, class Read>
std::vector<T> list(Read read, const ort::KernelInfo* info, const char* name) {
  size_t size = 0;
  if (ort::Status* none = read(api, info, name, static_cast<T*>(nullptr), &size)) {
    ort::release_status(api, none);  // an empty list, which has no type
    return {};
  }
  std::vector<T> out(size);
  if (size) check(read(api, info, name, out.data(), &size));
  return out;
}

Attributes attributes_of(const Kernel& kernel, const ort::KernelInfo* info) {
  Attributes found;
  const std::string all = kernel.attributes;
  for (size_t at = 0; at < all.size();) {
    const size_t end = std::min(all.find(' ', at), all.size());
    const std::string name = all.substr(at, end - at - 2);
    switch (all[end - 1]) {
      case 'i':
        check(ort::attribute_int(api, info, name.c_str(), &found.ints[name]));
        break;
      case 'f':
        check(ort::attribute_float(api, info, name.c_str(), &found.floats[name]));
        break;
      case 's': {
        size_t size = 0;
        if (ort::Status* more = ort::attribute_string(api, info, name.c_str(), static_cast<char*>(nullptr), &size))
          ort::release_status(api, more);
        std::string text(size, '\0');
        check(ort::attribute_string(api, info, name.c_str(), &text[0], &size));
        found.texts[name] = text.c_str();  // without the zero at its end
        break;
      }
      case 'I':
        found.int_lists[name] = list<int64_t>([](auto... x) { return ort::attribute_ints(x...); }, info, name.c_str());
        break;
      default:
        found.float_lists[name] =
            list<float>([](auto... x) { return ort::attribute_floats(x...); }, info, name.c_str());
    }
    at = end + 1;
  }
  return found;
}

class RunningNode : public Node {
 public:
  RunningNode(State& state, ort::KernelContext* context, int threads)
      : Node(state.attributes, state.memory, threads), context_(context) {}

  size_t inputs() const override {
    size_t count = 0;
    check(ort::input_count(api, static_cast<const ort::KernelContext*>(context_), &count));
    return count;
  }

 private:
  void* allocate(size_t n, const Sizes& shape, Type* type) override {
    ort::Value* value = nullptr;
    check(ort::output(api, context_, n, shape.data(), shape.size(), &value));
    Input found{};
    describe(value, &found);
    *type = found.type;
    void* data = nullptr;
    check(ort::tensor_data(api, value, &data));
    return data;
  }
  Input read(size_t n) const override {
    const ort::Value* value = nullptr;
    check(ort::input(api, static_cast<const ort::KernelContext*>(context_), n, &value));
    need(value != nullptr, "an input is missing");
    Input found{};
    void* data = nullptr;
    check(ort::tensor_data(api, const_cast<ort::Value*>(value), &data));
    found.data = data;
    describe(value, &found);
    return found;
  }

  static void describe(const ort::Value* value, Input* found) {
    ort::Shape* shape = nullptr;
    check(ort::type_and_shape(api, value, &shape));
    int type = 0;
    size_t axes = 0;
    ort::Status* status = ort::element_type(api, static_cast<const ort::Shape*>(shape), &type);
    if (!status) status = ort::axes(api, static_cast<const ort::Shape*>(shape), &axes);
    found->shape.resize(axes);
    if (!status) status = ort::sizes(api, static_cast<const ort::Shape*>(shape), found->shape.data(), axes);
    ort::release_shape(api, shape);
    check(status);
    found->type = static_cast<Type>(type);
  }

  ort::KernelContext* context_;
};

// The session's own threads: ours and theirs would take each other's cores.
void on_threads_of_the_session(void* context, size_t tasks, void (*task)(void*, size_t), void* of) {
  check(ort::parallel_for(api, static_cast<const ort::KernelContext*>(context), task, tasks, tasks, of));
}

// ---------------------------------------------------------------- the functions of an operator

ort::Status* create(const ort::CustomOp* op, const ort::Api*, const ort::KernelInfo* info, void** out) {
  const Kernel& kernel = *self(op).kernel;
  try {
    *out = new State{&kernel, attributes_of(kernel, info), {}};
    return nullptr;
  } catch (const std::exception& e) {
    return failure(kernel.name, e.what());
  }
}

ort::Status* compute(void* kernel, ort::KernelContext* context) {
  State& state = *static_cast<State*>(kernel);
  try {
    const UseThreadsOf session(on_threads_of_the_session, context);
    // How many the session has, the interface does not tell: those that are too many find nothing left to do.
    static const int cores = std::max(1u, std::thread::hardware_concurrency());
    RunningNode node(state, context, cores);
    state.kernel->run(node);
    node.finish();
    return nullptr;
  } catch (const std::exception& e) {
    return failure(state.kernel->name, e.what());
  }
}

Op make(const Kernel& kernel, Type floats) {
  Op op{};
  op.version = ort::kApiVersion;
  op.kernel = &kernel, op.floats = floats;
  op.name = [](const ort::CustomOp* o) { return self(o).kernel->name; };
  op.provider = [](const ort::CustomOp*) { return "CPUExecutionProvider"; };
  op.input_type = [](const ort::CustomOp* o, size_t n) { return number_of(self(o).kernel->inputs[n], self(o).floats); };
  op.input_count = [](const ort::CustomOp* o) { return input_count(self(o)); };
  op.output_type = [](const ort::CustomOp* o, size_t n) {
    return number_of(self(o).kernel->outputs[n], self(o).floats);
  };
  op.output_count = [](const ort::CustomOp* o) { return std::string(self(o).kernel->outputs).size(); };
  op.input_characteristic = [](const ort::CustomOp* o, size_t) { return many(self(o)) ? 2 : 0; };
  op.output_characteristic = [](const ort::CustomOp*, size_t) { return 0; };
  op.input_memory = [](const ort::CustomOp*, size_t) { return 0; };
  op.variadic_input_min = [](const ort::CustomOp*) { return 1; };
  op.variadic_input_homogeneous = [](const ort::CustomOp*) { return 1; };
  op.variadic_output_min = [](const ort::CustomOp*) { return 1; };
  op.variadic_output_homogeneous = [](const ort::CustomOp*) { return 1; };
  op.create_kernel_v2 = create;
  op.compute_v2 = compute;
  op.destroy_kernel = [](void* kernel) { delete static_cast<State*>(kernel); };
  op.start_version = [](const ort::CustomOp*) { return 1; };
  op.end_version = [](const ort::CustomOp*) { return 1 << 30; };
  return op;
}

// Never destroyed: a session may outlive us.
ort::Domain* make_domain() {
  auto& ops = *new std::deque<Op>;
  ort::Domain* domain = nullptr;
  check(ort::create_domain(api, "fastprompt", &domain));
  for (const Kernel* kernel : all_kernels()) {
    const bool generic = std::string(kernel->inputs).find('T') != std::string::npos;
    for (Type floats : kFloats) {
      if (!generic && floats != Type::f32) continue;
      ops.push_back(make(*kernel, floats));
      check(ort::add_to_domain(api, domain, static_cast<const void*>(static_cast<ort::CustomOp*>(&ops.back()))));
    }
  }
  return domain;
}

}  // namespace
}  // namespace fastprompt

extern "C" __attribute__((visibility("default"))) fastprompt::ort::Status* RegisterCustomOps(
    fastprompt::ort::SessionOptions* options, const fastprompt::ort::ApiBase* base) {
  using namespace fastprompt;
  const ort::Api* found = base->get_api(ort::kApiVersion);
  if (!found) return ort::create_status(base->get_api(1), 1, "fastprompt needs ONNX Runtime 1.17 or newer");
  api = found;
  try {
    static ort::Domain* domain = make_domain();
    check(ort::add_domain(api, options, domain));
    return nullptr;
  } catch (const std::exception& e) {
    return failure("operators", e.what());
  }
}
