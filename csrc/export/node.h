// A node of an exported model while a runtime executes it: what a kernel of ours sees of any runtime.
#pragma once
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/sizes.h"

namespace fastprompt {

enum class Type : int {
  f32 = 1,
  u8 = 2,
  i32 = 6,
  i64 = 7,
  boolean = 9,
  f16 = 10,
  f64 = 11,
  bf16 = 16
};  // ONNX's numbers

using Sizes = std::vector<int64_t>;

struct Input {
  const void* data;
  Type type;
  Sizes shape;
  int64_t count() const;
  bool absent() const { return count() == 1; }  // one number that changes nothing stands for what is not given
};

struct Attributes {
  std::map<std::string, int64_t> ints;
  std::map<std::string, float> floats;
  std::map<std::string, std::string> texts;
  std::map<std::string, Sizes> int_lists;
  std::map<std::string, std::vector<float>> float_lists;
  int64_t size(const char* name) const;                      // of ints, from 0 to kLargestSize
  const Sizes& sizes(const char* name, size_t count) const;  // of int_lists, so many, each from 0
};

// What a node keeps from call to call.
struct Memory {
  std::mutex mutex;
  std::shared_ptr<const void> kept;
};

class Node {
 public:
  Node(const Attributes& attributes, Memory& memory, int threads)
      : attributes(attributes), memory(memory), threads(threads) {}
  virtual ~Node() = default;
  virtual size_t inputs() const = 0;
  const Input& input(size_t n);  // asked of the host once: a decoder has a hundred of them
  void* output(size_t n, const Sizes& shape, Type* type);

  const float* floats(size_t n);          // of input n; other types are converted
  const float* floats_or_null(size_t n);  // null: absent
  const uint8_t* bytes(size_t n);         // bool and uint8 as they are, other types as "not 0"
  const int64_t* indices(size_t n);       // int64, or int32 as OpenVINO computes them
  float* float_output(size_t n, const Sizes& shape);
  int64_t* index_output(size_t n, const Sizes& shape);
  void finish();  // converts the outputs that a kernel does not write as they are

  const Attributes& attributes;
  Memory& memory;
  const int threads;

 protected:
  virtual Input read(size_t n) const = 0;
  virtual void* allocate(size_t n, const Sizes& shape, Type* type) = 0;

 private:
  std::map<size_t, Input> inputs_;
  template <class T>
  struct Pending {
    std::vector<T> values;
    void* to;
    Type type;
  };
  std::deque<std::vector<float>> converted_;
  std::deque<std::vector<uint8_t>> bytes_;
  std::deque<std::vector<int64_t>> indices_;
  std::deque<Pending<float>> pending_floats_;
  std::deque<Pending<int64_t>> pending_indices_;
};

// What is known of a node before it runs: -1 stands for an axis that is not, no axes for a rank that is not.
struct Known {
  std::vector<Sizes> inputs;
  const Attributes& attributes;
  int64_t axis(size_t n, size_t k) const { return n < inputs.size() && k < inputs[n].size() ? inputs[n][k] : -1; }
  Sizes axes(size_t n, std::initializer_list<size_t> which) const {
    Sizes found;
    for (size_t k : which) found.push_back(axis(n, k));
    return found;
  }
};

// One operator: its name in domain fastprompt, and its inputs, outputs and attributes, a letter for each type. Inputs
// and outputs: T one float type for all, i int64, a any, f float32, u uint8; "+" behind the last: at least one of it.
// Attributes: name:letter, i f s I F.
struct Kernel {
  const char *name, *inputs, *outputs, *attributes;
  void (*run)(Node&);
  std::vector<Sizes> (*shapes)(const Known&);  // of the outputs
};

// FASTPROMPT_NODES(family) { {"Name", …}, … }; adds rows, so that there is no list of families.
struct Nodes {
  Nodes(std::vector<Kernel> rows) : rows(std::move(rows)), next(first) { first = this; }
  const std::vector<Kernel> rows;
  const Nodes* next;
  static inline const Nodes* first = nullptr;  // constant-initialised: no order problem between files
};

#define FASTPROMPT_NODES(family) static const fastprompt::Nodes nodes_of_##family = std::vector<fastprompt::Kernel>

std::vector<const Kernel*> all_kernels();  // by name

// Of a letter; f32 stands for "any".
inline Type type_of(char letter, Type floats) {
  return letter == 'T' ? floats : letter == 'i' ? Type::i64 : letter == 'u' ? Type::u8 : Type::f32;
}

}  // namespace fastprompt
