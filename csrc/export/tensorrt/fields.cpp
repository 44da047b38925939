#include <cstring>

#include "export/tensorrt/plugin.h"

namespace fastprompt::tensorrt {

using nvinfer1::PluginFieldType;

namespace {

size_t size_of(PluginFieldType type) {
  switch (type) {
    case PluginFieldType::kFLOAT32:
    case PluginFieldType::kINT32:
      return 4;
    case PluginFieldType::kINT64:
      return 8;
    case PluginFieldType::kCHAR:
      return 1;
    default:
      throw std::invalid_argument("a field must be float32, int32, int64 or char");
  }
}

}  // namespace

Fields::Fields(const nvinfer1::PluginFieldCollection& given) {
  for (int32_t n = 0; n < given.nbFields; ++n) {
    const nvinfer1::PluginField& f = given.fields[n];
    if (!f.data || f.length <= 0) continue;  // an empty list
    fields_.push_back({f.name, {static_cast<const char*>(f.data), size_of(f.type) * f.length}, f.type, f.length});
  }
}

const Fields::Field& Fields::find(const char* name) const {
  for (const Field& f : fields_)
    if (f.name == name) return f;
  throw std::invalid_argument(std::string("the attribute ") + name + " is missing");
}

std::string Fields::text(const char* name) const {
  const Field& f = find(name);
  if (f.type != PluginFieldType::kCHAR) throw std::invalid_argument(std::string(name) + " must be a text");
  return f.bytes.substr(0, f.bytes.find('\0'));  // some parsers count the final 0
}

std::vector<int64_t> Fields::integers(const char* name, size_t count) const {
  const Field& f = find(name);
  std::vector<int64_t> values(f.length);
  for (int32_t n = 0; n < f.length; ++n) {
    int32_t narrow;
    if (f.type == PluginFieldType::kINT64)
      std::memcpy(&values[n], f.bytes.data() + 8 * n, 8);
    else if (f.type == PluginFieldType::kINT32)
      std::memcpy(&narrow, f.bytes.data() + 4 * n, 4), values[n] = narrow;
    else
      throw std::invalid_argument(std::string(name) + " must be an integer");
  }
  if (count && values.size() != count) throw std::invalid_argument(std::string(name) + " has another length");
  return values;
}

std::vector<float> Fields::numbers(const char* name, size_t count) const {
  const Field& f = find(name);
  if (f.type != PluginFieldType::kFLOAT32) throw std::invalid_argument(std::string(name) + " must be float32");
  std::vector<float> values(f.length);
  std::memcpy(values.data(), f.bytes.data(), f.bytes.size());
  if (count && values.size() != count) throw std::invalid_argument(std::string(name) + " has another length");
  return values;
}

std::vector<nvinfer1::PluginField> Fields::collection() const {
  std::vector<nvinfer1::PluginField> found;
  for (const Field& f : fields_) found.emplace_back(f.name.c_str(), f.bytes.data(), f.type, f.length);
  return found;
}

}  // namespace fastprompt::tensorrt
