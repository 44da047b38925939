// Nodes of domain fastprompt for OpenVINO. The kernels are those of the library that also serves ONNX Runtime, loaded
// at run time; this file knows names and attributes only by asking it.
#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <map>
#include <openvino/core/op_extension.hpp>
#include <openvino/frontend/onnx/extension/conversion.hpp>
#include <openvino/op/op.hpp>
#include <thread>
#include <variant>
#ifdef FASTPROMPT_TBB
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#endif

#include "node_abi.h"

namespace {

using Error = std::array<char, FASTPROMPT_ERROR_SIZE>;
using Tensor = fastprompt_tensor;

// ---------------------------------------------------------------- the library

struct Library {
  decltype(&fastprompt_node_name) name;
  decltype(&fastprompt_node_new) create;
  decltype(&fastprompt_node_delete) destroy;
  decltype(&fastprompt_node_ints) set_ints;
  decltype(&fastprompt_node_floats) set_floats;
  decltype(&fastprompt_node_text) set_text;
  decltype(&fastprompt_node_attributes) attributes;
  decltype(&fastprompt_node_outputs) outputs;
  decltype(&fastprompt_node_run) run;
};

const Library& library() {
  static const Library found = [] {
    const char* given = std::getenv("FASTPROMPT_LIBRARY");
    const char* path = given ? given : FASTPROMPT_LIBRARY;
    void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    OPENVINO_ASSERT(handle, "fastprompt: ", dlerror(), " (the environment variable FASTPROMPT_LIBRARY names another)");
    Library l{};
    const auto load = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(handle, name));
      OPENVINO_ASSERT(function, "fastprompt: ", path, " is of another version: it has no ", name);
    };
    load(l.name, "fastprompt_node_name");
    load(l.create, "fastprompt_node_new"), load(l.destroy, "fastprompt_node_delete");
    load(l.set_ints, "fastprompt_node_ints"), load(l.set_floats, "fastprompt_node_floats");
    load(l.set_text, "fastprompt_node_text"), load(l.attributes, "fastprompt_node_attributes");
    load(l.outputs, "fastprompt_node_outputs"), load(l.run, "fastprompt_node_run");
    return l;
  }();
  return found;
}

// ---------------------------------------------------------------- types and shapes

const std::map<int32_t, ov::element::Type>& types() {  // ONNX's numbers
  static const std::map<int32_t, ov::element::Type> all = {
      {1, ov::element::f32},     {2, ov::element::u8},   {6, ov::element::i32},  {7, ov::element::i64},
      {9, ov::element::boolean}, {10, ov::element::f16}, {11, ov::element::f64}, {16, ov::element::bf16}};
  return all;
}

int32_t number_of(const ov::element::Type& type) {
  for (const auto& [number, known] : types())
    if (known == type) return number;
  return 1;  // not known yet; a kernel asks again when it runs
}

Tensor known(const ov::PartialShape& shape, const ov::element::Type& type) {
  Tensor x{};
  x.type = number_of(type), x.axes = -1;
  if (shape.rank().is_dynamic() || shape.size() > 8) return x;
  x.axes = static_cast<int32_t>(shape.size());
  for (size_t k = 0; k < shape.size(); ++k) x.sizes[k] = shape[k].is_static() ? shape[k].get_length() : -1;
  return x;
}

// ---------------------------------------------------------------- a node

using Value = std::variant<int64_t, float, std::string, std::vector<int64_t>, std::vector<float>>;

Value empty(char letter) {
  switch (letter) {
    case 'i':
      return int64_t{0};
    case 'f':
      return 0.0f;
    case 's':
      return std::string();
    case 'I':
      return std::vector<int64_t>();
    default:
      return std::vector<float>();
  }
}

// What a node is made of, shared by its clones: all of them find an image prepared.
class Made {
 public:
  explicit Made(const char* name) : node_(library().create(name)) {
    OPENVINO_ASSERT(node_, "fastprompt: the library has no operator ", name);
    const std::string all = library().attributes(node_);
    for (size_t at = 0; at < all.size();) {
      const size_t end = std::min(all.find(' ', at), all.size());
      values[all.substr(at, end - at - 2)] = empty(all[end - 1]);
      at = end + 1;
    }
  }
  ~Made() { library().destroy(node_); }
  Made(const Made&) = delete;

  void pass_on() {
    for (const auto& [key, value] : values) {
      const char* name = key.c_str();
      if (const auto* x = std::get_if<int64_t>(&value)) library().set_ints(node_, name, x, 1);
      if (const auto* x = std::get_if<float>(&value)) library().set_floats(node_, name, x, 1);
      if (const auto* x = std::get_if<std::string>(&value)) library().set_text(node_, name, x->c_str());
      if (const auto* x = std::get_if<std::vector<int64_t>>(&value))
        library().set_ints(node_, name, x->data(), static_cast<int32_t>(x->size()));
      if (const auto* x = std::get_if<std::vector<float>>(&value))
        library().set_floats(node_, name, x->data(), static_cast<int32_t>(x->size()));
    }
  }
  fastprompt_node* node() const { return node_; }
  std::map<std::string, Value> values;

 private:
  fastprompt_node* node_;
};

struct Call {
  ov::TensorVector& outputs;
  const ov::TensorVector& inputs;

  static int32_t input(void* self, int32_t n, Tensor* found) {
    const ov::Tensor& x = static_cast<Call*>(self)->inputs[n];
    *found = known(x.get_shape(), x.get_element_type());
    found->data = const_cast<void*>(static_cast<const ov::Tensor&>(x).data());
    return 0;
  }
  static int32_t output(void* self, int32_t n, Tensor* wanted) try {
    ov::Tensor& x = static_cast<Call*>(self)->outputs[n];
    x.set_shape(ov::Shape(wanted->sizes, wanted->sizes + wanted->axes));
    wanted->type = number_of(x.get_element_type()), wanted->data = x.data();
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
#ifdef FASTPROMPT_TBB
  // The threads of the stream that runs the model. A task waits for others: no thread may take up work of elsewhere.
  static int32_t parallel(void*, size_t tasks, void (*task)(void*, size_t), void* of) try {
    tbb::this_task_arena::isolate([&] {
      tbb::parallel_for(
          tbb::blocked_range<size_t>(0, tasks, 1),
          [&](const tbb::blocked_range<size_t>& range) {
            for (size_t k = range.begin(); k < range.end(); ++k) task(of, k);
          },
          tbb::simple_partitioner());
    });
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
  static int32_t threads() { return tbb::this_task_arena::max_concurrency(); }
#else
  static constexpr decltype(fastprompt_host::parallel) parallel = nullptr;
  static int32_t threads() { return static_cast<int32_t>(std::max(1u, std::thread::hardware_concurrency())); }
#endif
};

class OurNode : public ov::op::Op {
 public:
  explicit OurNode(const ov::DiscreteTypeInfo& type) : type_(type), made_(std::make_shared<Made>(type.name)) {}
  OurNode(const ov::DiscreteTypeInfo& type, const ov::OutputVector& inputs, std::shared_ptr<Made> made)
      : Op(inputs), type_(type), made_(std::move(made)) {
    made_->pass_on();
    constructor_validate_and_infer_types();
  }

  const ov::DiscreteTypeInfo& get_type_info() const override { return type_; }

  void validate_and_infer_types() override {
    made_->pass_on();
    std::vector<Tensor> inputs;
    for (size_t n = 0; n < get_input_size(); ++n)
      inputs.push_back(known(get_input_partial_shape(n), get_input_element_type(n)));
    Tensor found[8] = {};
    Error error{};
    const int32_t count =
        library().outputs(made_->node(), inputs.data(), static_cast<int32_t>(inputs.size()), found, error.data());
    OPENVINO_ASSERT(count > 0, error.data());
    set_output_size(count);
    for (int32_t n = 0; n < count; ++n) {
      const std::vector<ov::Dimension> axes(found[n].sizes, found[n].sizes + found[n].axes);
      set_output_type(n, types().at(found[n].type), ov::PartialShape(axes));
    }
  }

  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
    return std::make_shared<OurNode>(type_, inputs, made_);
  }

  bool visit_attributes(ov::AttributeVisitor& visitor) override {
    for (auto& [name, value] : made_->values)
      std::visit([&visitor, key = name](auto& x) { visitor.on_attribute(key, x); }, value);
    return true;
  }

  bool has_evaluate() const override { return true; }

  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
    Call call{outputs, inputs};
    const fastprompt_host host{
        &call, static_cast<int32_t>(inputs.size()), Call::threads(), Call::input, Call::output, Call::parallel};
    Error error{};
    OPENVINO_ASSERT(library().run(made_->node(), &host, error.data()) == 0, error.data());
    return true;
  }

 private:
  const ov::DiscreteTypeInfo& type_;
  std::shared_ptr<Made> made_;
};

// ---------------------------------------------------------------- extensions

template <class T>
T value_of(const ov::frontend::NodeContext& context, const std::string& name, const T&) {
  return context.get_attribute<T>(name);
}

// The frontend has double numbers in a list.
std::vector<float> value_of(const ov::frontend::NodeContext& context, const std::string& name,
                            const std::vector<float>&) {
  const ov::Any found = context.get_attribute_as_any(name);
  if (!found.is<std::vector<double>>()) return found.as<std::vector<float>>();
  const auto& numbers = found.as<std::vector<double>>();
  return {numbers.begin(), numbers.end()};
}

// From an ONNX node.
ov::OutputVector convert(const ov::DiscreteTypeInfo& type, const ov::frontend::NodeContext& context) {
  auto made = std::make_shared<Made>(type.name);
  for (auto& [name, value] : made->values)
    std::visit(
        [&, key = name](auto& x) {
          // An empty list has no type, and so no value.
          if (context.has_attribute(key)) x = value_of(context, key, x);
        },
        value);
  ov::OutputVector inputs;
  for (size_t n = 0; n < context.get_input_size(); ++n) inputs.push_back(context.get_input(static_cast<int>(n)));
  return std::make_shared<OurNode>(type, inputs, made)->outputs();
}

// From OpenVINO's own files.
class FromFile : public ov::BaseOpExtension {
 public:
  explicit FromFile(const ov::DiscreteTypeInfo& type) : type_(type) {}
  const ov::DiscreteTypeInfo& get_type_info() const override { return type_; }
  ov::OutputVector create(const ov::OutputVector& inputs, ov::AttributeVisitor& visitor) const override {
    const auto node = std::make_shared<OurNode>(type_);
    node->set_arguments(inputs);
    node->visit_attributes(visitor);
    node->constructor_validate_and_infer_types();
    return node->outputs();
  }
  std::vector<ov::Extension::Ptr> get_attached_extensions() const override { return {}; }

 private:
  const ov::DiscreteTypeInfo& type_;
};

std::vector<ov::Extension::Ptr> extensions() {
  static const std::vector<ov::DiscreteTypeInfo> all = [] {
    std::vector<ov::DiscreteTypeInfo> made;
    for (int32_t n = 0; const char* name = library().name(n); ++n)
      made.emplace_back(name, "fastprompt", &ov::op::Op::get_type_info_static());
    return made;
  }();
  std::vector<ov::Extension::Ptr> found;
  for (const ov::DiscreteTypeInfo& type : all) {
    found.push_back(std::make_shared<FromFile>(type));
    found.push_back(std::make_shared<ov::frontend::onnx::ConversionExtension>(
        type.name, "fastprompt", [&type](const ov::frontend::NodeContext& c) { return convert(type, c); }));
  }
  return found;
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(extensions());
