// A node of an exported model while a runtime executes it: what a kernel of ours sees of any runtime.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastprompt {

enum class Type : int { f32 = 1, u8 = 2, i64 = 7, boolean = 9, f16 = 10, f64 = 11, bf16 = 16 };  // ONNX's numbers

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
  virtual Input input(size_t n) const = 0;
  virtual void* output(size_t n, const Sizes& shape, Type* type) = 0;

  const float* floats(size_t n);          // of input n; other types are converted
  const float* floats_or_null(size_t n);  // null: absent
  const uint8_t* bytes(size_t n);         // bool and uint8 as they are, other types as "not 0"
  const int64_t* indices(size_t n) const;
  float* float_output(size_t n, const Sizes& shape);
  int64_t* index_output(size_t n, const Sizes& shape);
  void finish();  // converts the outputs that are not float32

  const Attributes& attributes;
  Memory& memory;
  const int threads;

 private:
  struct Pending {
    std::vector<float> values;
    void* to;
    Type type;
  };
  std::vector<std::unique_ptr<std::vector<float>>> converted_;
  std::vector<std::unique_ptr<std::vector<uint8_t>>> bytes_;
  std::vector<std::unique_ptr<Pending>> pending_;
};

inline void need(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

// One operator: its name in domain fastprompt, and its inputs, outputs and attributes, a letter for each type. Inputs
// and outputs: T one float type for all, i int64, a any, f float32, u uint8; "+" behind the last: at least one of it.
// Attributes: name:letter, i f s I F.
struct Kernel {
  const char *name, *inputs, *outputs, *attributes;
  void (*run)(Node&);
};

extern const std::vector<Kernel> kAttentionKernels, kMaskKernels, kTokenKernels;

}  // namespace fastprompt
