#include "export/node.h"

#include <algorithm>
#include <cstring>

namespace fastprompt {
namespace {

float from_bf16(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

uint16_t to_bf16(float x) {  // to the nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float from_f16(uint16_t x) {
  const uint32_t sign = static_cast<uint32_t>(x & 0x8000) << 16, rest = x & 0x7fff;
  float out;
  if (rest < 0x400) {  // 0 and subnormal: multiples of 2^-24
    out = static_cast<float>(rest) * 0x1p-24f;
    return sign ? -out : out;
  }
  const uint32_t bits = sign | (rest >= 0x7c00 ? (rest << 13) + 0x70000000 : (rest << 13) + 0x38000000);
  std::memcpy(&out, &bits, 4);
  return out;
}

uint16_t to_f16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return sign | 0x7e00;
  if (bits >= 0x477ff000) return sign | 0x7c00;  // beyond 65504, rounded
  if (bits < 0x38800000) {                       // below 2^-14: the addition rounds to multiples of 2^-24
    float size;
    std::memcpy(&size, &bits, 4);
    size += 0.5f;
    std::memcpy(&bits, &size, 4);
    return sign | static_cast<uint16_t>(bits - 0x3f000000);
  }
  return sign | static_cast<uint16_t>((bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13);
}

float as_float(const Input& x, int64_t k) {
  switch (x.type) {
    case Type::f32:
      return static_cast<const float*>(x.data)[k];
    case Type::f64:
      return static_cast<float>(static_cast<const double*>(x.data)[k]);
    case Type::f16:
      return from_f16(static_cast<const uint16_t*>(x.data)[k]);
    case Type::bf16:
      return from_bf16(static_cast<const uint16_t*>(x.data)[k]);
    case Type::i64:
      return static_cast<float>(static_cast<const int64_t*>(x.data)[k]);
    case Type::i32:
      return static_cast<float>(static_cast<const int32_t*>(x.data)[k]);
    case Type::u8:
    case Type::boolean:
      return static_cast<const uint8_t*>(x.data)[k];
  }
  throw std::invalid_argument("an input has a type that no kernel reads: cast it to float32");
}

}  // namespace

int64_t Input::count() const {
  int64_t n = 1;
  for (int64_t size : shape) n *= size;
  return n;
}

int64_t Attributes::size(const char* name) const {
  const int64_t n = ints.at(name);
  if (n < 0 || n > kLargestSize)
    throw std::invalid_argument(std::string(name) + " must be between 0 and 2147483647, got " + std::to_string(n));
  return n;
}

const Sizes& Attributes::sizes(const char* name, size_t count) const {
  const Sizes& found = int_lists.at(name);
  const bool fair = std::all_of(found.begin(), found.end(), [](int64_t n) { return n >= 0 && n <= kLargestSize; });
  if (found.size() != count || !fair)
    throw std::invalid_argument(std::string(name) + " must be " + std::to_string(count) +
                                " numbers between 0 and 2147483647");
  return found;
}

namespace {

void need_aligned(const void* data, Type type) {
  const size_t bytes = type == Type::f64 || type == Type::i64    ? 8
                       : type == Type::f32 || type == Type::i32  ? 4
                       : type == Type::f16 || type == Type::bf16 ? 2
                                                                 : 1;
  need(reinterpret_cast<std::uintptr_t>(data) % bytes == 0, "the memory of a tensor must be aligned to its numbers");
}

}  // namespace

const Input& Node::input(size_t n) {
  const auto found = inputs_.find(n);
  if (found != inputs_.end()) return found->second;
  Input x = read(n);
  need(has_fair_sizes(x.shape.data(), static_cast<int64_t>(x.shape.size())), "an input is too large");
  need_aligned(x.data, x.type);
  return inputs_.emplace(n, std::move(x)).first->second;
}

void* Node::output(size_t n, const Sizes& shape, Type* type) {
  need(has_fair_sizes(shape.data(), static_cast<int64_t>(shape.size())), "an output is too large");
  void* data = allocate(n, shape, type);
  need_aligned(data, *type);
  return data;
}

const float* Node::floats(size_t n) {
  const Input& x = input(n);
  if (x.type == Type::f32) return static_cast<const float*>(x.data);
  converted_.emplace_back(x.count());
  for (int64_t k = 0; k < x.count(); ++k) converted_.back()[k] = as_float(x, k);
  return converted_.back().data();
}

const float* Node::floats_or_null(size_t n) { return input(n).absent() ? nullptr : floats(n); }

const uint8_t* Node::bytes(size_t n) {
  const Input& x = input(n);
  if (x.type == Type::u8 || x.type == Type::boolean) return static_cast<const uint8_t*>(x.data);
  bytes_.emplace_back(x.count());
  for (int64_t k = 0; k < x.count(); ++k) bytes_.back()[k] = as_float(x, k) != 0;
  return bytes_.back().data();
}

const int64_t* Node::indices(size_t n) {
  const Input& x = input(n);
  if (x.type == Type::i64) return static_cast<const int64_t*>(x.data);
  need(x.type == Type::i32, "indices must be int64");
  const auto* from = static_cast<const int32_t*>(x.data);
  indices_.emplace_back(from, from + x.count());
  return indices_.back().data();
}

namespace {

int64_t count_of(const Sizes& shape) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

}  // namespace

float* Node::float_output(size_t n, const Sizes& shape) {
  Type type;
  void* to = output(n, shape, &type);
  if (type == Type::f32) return static_cast<float*>(to);
  pending_floats_.push_back({std::vector<float>(count_of(shape)), to, type});
  return pending_floats_.back().values.data();
}

int64_t* Node::index_output(size_t n, const Sizes& shape) {
  Type type;
  void* to = output(n, shape, &type);
  if (type == Type::i64) return static_cast<int64_t*>(to);
  need(type == Type::i32, "an output of indices must be int64");
  pending_indices_.push_back({std::vector<int64_t>(count_of(shape)), to, type});
  return pending_indices_.back().values.data();
}

void Node::finish() {
  for (const auto& p : pending_floats_) {
    for (size_t k = 0; k < p.values.size(); ++k) {
      const float x = p.values[k];
      if (p.type == Type::f64) static_cast<double*>(p.to)[k] = x;
      if (p.type == Type::f16) static_cast<uint16_t*>(p.to)[k] = to_f16(x);
      if (p.type == Type::bf16) static_cast<uint16_t*>(p.to)[k] = to_bf16(x);
    }
  }
  for (const auto& p : pending_indices_)
    for (size_t k = 0; k < p.values.size(); ++k) static_cast<int32_t*>(p.to)[k] = static_cast<int32_t>(p.values[k]);
}

std::vector<const Kernel*> all_kernels() {
  std::vector<const Kernel*> found;
  for (const Nodes* family = Nodes::first; family; family = family->next)
    for (const Kernel& kernel : family->rows) found.push_back(&kernel);
  std::sort(found.begin(), found.end(), [](auto* a, auto* b) { return std::strcmp(a->name, b->name) < 0; });
  return found;
}

}  // namespace fastprompt
