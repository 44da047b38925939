// What TensorRT does with a plugin, on a machine without a GPU: the registry is that of TensorRT-lean, the rest is
// here. The headers must be of the major version of the library.
//
//   host libfastprompt_tensorrt.so < job
//
// A job has lines "plugin NAME VERSION", "field NAME int|float|ints|floats VALUES", "field NAME text|file WORD",
// "input TYPE SIZES"; types are TensorRT's numbers. What is found is printed, a line each, for the test to compare.
#include <NvInferRuntime.h>

#include <cstdio>
#include <cstring>
#include <deque>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <vector>

using namespace nvinfer1;

extern "C" IPluginRegistry* getPluginRegistry() noexcept;  // in libnvinfer_lean

namespace {

[[noreturn]] void fail(const std::string& what) {
  std::printf("FAIL %s\n", what.c_str());
  std::exit(1);
}
void expect(bool holds, const std::string& what) {
  if (!holds) fail(what);
}

// Sizes that are known, in the place of TensorRT's symbolic ones.
class Number final : public IDimensionExpr, apiv::VDimensionExpr {
 public:
  explicit Number(int64_t value) : value_(value) { mImpl = this; }
  bool isConstant() const override { return true; }
  int64_t getConstantValue() const override { return value_; }
  bool isSizeTensor() const override { return false; }

 private:
  int64_t value_;
};

class Numbers final : public IExprBuilder, apiv::VExprBuilder {
 public:
  Numbers() { mImpl = this; }
  const IDimensionExpr* constant(int64_t value) override { return &made_.emplace_back(value); }
  const IDimensionExpr* operation(DimensionOperation op, const IDimensionExpr& first,
                                  const IDimensionExpr& second) override {
    const int64_t a = first.getConstantValue(), b = second.getConstantValue();
    switch (op) {
      case DimensionOperation::kSUM:
        return constant(a + b);
      case DimensionOperation::kSUB:
        return constant(a - b);
      case DimensionOperation::kPROD:
        return constant(a * b);
      case DimensionOperation::kMAX:
        return constant(a > b ? a : b);
      case DimensionOperation::kMIN:
        return constant(a < b ? a : b);
      case DimensionOperation::kFLOOR_DIV:
        return constant(a / b);
      case DimensionOperation::kCEIL_DIV:
        return constant((a + b - 1) / b);
      default:
        fail("operation of sizes");
    }
  }
  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&, const IDimensionExpr&) override {
    fail("size tensor");
  }

 private:
  std::deque<Number> made_;
};

class Logger final : public ILogger {
  void log(Severity, const AsciiChar* text) noexcept override { std::printf("log %s\n", text); }
};

struct Job {
  std::string name, version;
  std::deque<std::string> names;
  std::deque<std::string> bytes;
  std::vector<PluginField> fields;
  std::vector<PluginTensorDesc> inputs;
};

template <class T>
void add(Job& job, const std::string& name, PluginFieldType type, std::istream& values) {
  std::string all;
  for (std::string word; values >> word;) {
    const T value = std::is_floating_point<T>::value ? T(std::stod(word)) : T(std::stoll(word));
    all.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  const auto length = static_cast<int32_t>(all.size() / sizeof(T));
  job.names.push_back(name), job.bytes.push_back(all);
  job.fields.emplace_back(job.names.back().c_str(), job.bytes.back().data(), type, length);
}

Job read_job() {
  Job job;
  for (std::string line, word, name, kind; std::getline(std::cin, line);) {
    std::istringstream in(line);
    in >> word;
    if (word == "plugin") {
      in >> job.name >> job.version;
    } else if (word == "input") {
      int type;
      in >> type;
      PluginTensorDesc desc{};
      desc.type = static_cast<DataType>(type), desc.format = TensorFormat::kLINEAR;
      while (in >> desc.dims.d[desc.dims.nbDims]) ++desc.dims.nbDims;
      job.inputs.push_back(desc);
    } else {
      in >> name >> kind;
      if (kind == "int" || kind == "ints") add<int32_t>(job, name, PluginFieldType::kINT32, in);
      if (kind == "float" || kind == "floats") add<float>(job, name, PluginFieldType::kFLOAT32, in);
      if (kind == "text" || kind == "file") {
        std::string text;
        in >> text;
        if (kind == "file") {
          std::ifstream file(text);
          text.assign(std::istreambuf_iterator<char>(file), {});
        }
        job.names.push_back(name), job.bytes.push_back(text);
        job.fields.emplace_back(job.names.back().c_str(), job.bytes.back().data(), PluginFieldType::kCHAR,
                                static_cast<int32_t>(text.size()));
      }
    }
  }
  return job;
}

template <class T>
T* capability(IPluginV3* plugin, PluginCapabilityType type) {
  auto* found = static_cast<T*>(plugin->getCapabilityInterface(type));
  expect(found != nullptr, "capability");
  return found;
}

bool same(const PluginFieldCollection& a, const PluginFieldCollection& b) {
  if (a.nbFields != b.nbFields) return false;
  for (int n = 0; n < a.nbFields; ++n) {
    const PluginField &x = a.fields[n], &y = b.fields[n];
    const size_t each = x.type == PluginFieldType::kCHAR ? 1 : 4;
    if (std::strcmp(x.name, y.name) || x.type != y.type || x.length != y.length ||
        std::memcmp(x.data, y.data, each * x.length))
      return false;
  }
  return true;
}

// The engine's copy of the plugin, made from what the first one has serialised.
IPluginV3* restored(IPluginCreatorV3One* creator, IPluginV3* plugin, const PluginFieldCollection& given) {
  auto* runtime = capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
  const PluginFieldCollection* saved = runtime->getFieldsToSerialize();
  expect(same(*saved, given), "the fields are serialised");
  IPluginV3* made = creator->createPlugin("again", saved, TensorRTPhase::kRUNTIME);
  expect(made != nullptr, "created from what was serialised");
  auto* again = capability<IPluginV3OneRuntime>(made, PluginCapabilityType::kRUNTIME);
  expect(same(*again->getFieldsToSerialize(), given), "the fields are restored");
  return made;
}

void print(const char* what, const PluginTensorDesc& desc) {
  std::printf("%s %d", what, int(desc.type));
  for (int k = 0; k < desc.dims.nbDims; ++k) std::printf(" %ld", long(desc.dims.d[k]));
  std::printf("\n");
}

// Types, shapes, formats and memory, as they are asked for while an engine is built.
std::vector<PluginTensorDesc> built(IPluginV3* plugin, const std::vector<PluginTensorDesc>& in, size_t& workspace) {
  auto* build = capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
  const int inputs = static_cast<int>(in.size()), outputs = build->getNbOutputs();
  Numbers numbers;
  std::vector<DimsExprs> in_sizes(inputs), out_sizes(outputs);
  std::vector<DataType> in_types, out_types(outputs);
  for (int n = 0; n < inputs; ++n) {
    in_types.push_back(in[n].type);
    in_sizes[n].nbDims = in[n].dims.nbDims;
    for (int k = 0; k < in[n].dims.nbDims; ++k) in_sizes[n].d[k] = numbers.constant(in[n].dims.d[k]);
  }
  expect(!build->getOutputDataTypes(out_types.data(), outputs, in_types.data(), inputs), "types of outputs");
  expect(!build->getOutputShapes(in_sizes.data(), inputs, nullptr, 0, out_sizes.data(), outputs, numbers), "shapes");
  std::vector<PluginTensorDesc> all = in;
  for (int n = 0; n < outputs; ++n) {
    PluginTensorDesc desc{};
    desc.type = out_types[n], desc.format = TensorFormat::kLINEAR, desc.dims.nbDims = out_sizes[n].nbDims;
    for (int k = 0; k < desc.dims.nbDims; ++k) desc.dims.d[k] = out_sizes[n].d[k]->getConstantValue();
    print("output", desc);
    all.push_back(desc);
  }
  std::vector<DynamicPluginTensorDesc> dynamic;
  for (const PluginTensorDesc& desc : all) dynamic.push_back({desc, desc.dims, desc.dims, desc.dims});
  for (size_t n = 0; n < all.size(); ++n) {
    const int position = static_cast<int>(n);
    expect(build->supportsFormatCombination(position, dynamic.data(), inputs, outputs), "linear format");
    dynamic[n].desc.format = TensorFormat::kHWC;
    expect(!build->supportsFormatCombination(position, dynamic.data(), inputs, outputs), "no other format");
    dynamic[n].desc.format = TensorFormat::kLINEAR;
    dynamic[n].desc.type = DataType::kINT8;
    expect(!build->supportsFormatCombination(position, dynamic.data(), inputs, outputs), "no other type");
    dynamic[n].desc.type = all[n].type;
  }
  expect(!build->configurePlugin(dynamic.data(), inputs, dynamic.data() + inputs, outputs), "configured");
  workspace = build->getWorkspaceSize(dynamic.data(), inputs, dynamic.data() + inputs, outputs);
  std::printf("workspace %zu\n", workspace);
  return {all.begin() + inputs, all.end()};
}

// Every buffer has an address of its own, which nothing reads: launches are recorded by the driver of the test.
void run(IPluginV3* plugin, const std::vector<PluginTensorDesc>& in, const std::vector<PluginTensorDesc>& out) {
  auto* runtime = capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
  auto* attached = runtime->attachToContext(nullptr);
  expect(attached != nullptr, "attached");
  runtime = capability<IPluginV3OneRuntime>(attached, PluginCapabilityType::kRUNTIME);
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  for (size_t n = 0; n < in.size(); ++n) inputs.push_back(reinterpret_cast<void*>((1 + n) << 32));
  for (size_t n = 0; n < out.size(); ++n) outputs.push_back(reinterpret_cast<void*>((101 + n) << 32));
  void* workspace = reinterpret_cast<void*>(1000l << 32);
  const int changed =
      runtime->onShapeChange(in.data(), static_cast<int>(in.size()), out.data(), static_cast<int>(out.size()));
  std::printf("onShapeChange %d\n", changed);
  const int done = runtime->enqueue(in.data(), out.data(), inputs.data(), outputs.data(), workspace, nullptr);
  std::printf("enqueue %d\n", done);
  delete attached;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  Job job = read_job();
  IPluginRegistry* registry = getPluginRegistry();
  expect(registry->loadLibrary(argv[1]) != nullptr, "loadLibrary");
  auto* found = registry->getCreator(job.name.c_str(), job.version.c_str(), "fastprompt");
  expect(found != nullptr, "a creator of that name, version and namespace");
  expect(!registry->getCreator(job.name.c_str(), "2", "fastprompt"), "no creator of another version");
  expect(!registry->getCreator(job.name.c_str(), job.version.c_str(), ""), "no creator of another namespace");
  expect(!std::strcmp(found->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE"), "kind of the creator");
  auto* creator = static_cast<IPluginCreatorV3One*>(found);
  const PluginFieldCollection* names = creator->getFieldNames();
  for (int n = 0; n < names->nbFields; ++n)
    std::printf("field %s %d\n", names->fields[n].name, int(names->fields[n].type));

  const PluginFieldCollection given{static_cast<int32_t>(job.fields.size()), job.fields.data()};
  IPluginV3* plugin = creator->createPlugin("node", &given, TensorRTPhase::kBUILD);
  if (!plugin) return std::printf("refused\n"), 0;
  auto* core = capability<IPluginV3OneCore>(plugin, PluginCapabilityType::kCORE);
  expect(job.name == core->getPluginName() && job.version == core->getPluginVersion(), "name and version");
  expect(!std::strcmp(core->getPluginNamespace(), "fastprompt"), "namespace");
  IPluginV3* engine = restored(creator, plugin, given);
  size_t workspace = 0;
  const auto outputs = built(plugin, job.inputs, workspace);
  delete plugin;  // the engine outlives the network
  run(engine, job.inputs, outputs);
  delete engine;
  std::printf("ok\n");
  return 0;
}
