#include "memory/read.h"

#include "common/attention_products.h"
#include "common/interrupt.h"
#include "common/online_softmax.h"
#include "common/scratch.h"
#include "memory/turn.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

static_assert(kMemoryQueries <= kQueries, "OnlineSoftmax has room for these");

// Of one head. Objects of several threads share what is packed.
template <class Products>
class Read {
 public:
  explicit Read(const MemoryHead& head)
      : head_(head),
        a_(head.args),
        products_(
            {a_.width, a_.depth, head.block_keys(), head.blocks(), head.engine, a_.precision == Precision::high}) {}

  int64_t packed_floats() const { return products_.packed_floats(); }

  void pack(int64_t block) {
    const int64_t first = block * head_.block_keys(), keys = keys_of(block), turned = a_.keys - a_.unturned;
    const int64_t key_row = products_.key_row(), out_row = products_.out_row();
    const Scratch memory(products_.own_floats() + products_.step() * (key_row > out_row ? key_row : out_row));
    float* rows = memory.data() + products_.own_floats();
    products_.place(head_.packed, memory.data());
    gather(a_.key, a_.keys, first, keys, a_.width, products_.step(), key_row, rows);
    for (int64_t n = 0; a_.key_cos && n < keys && first + n < turned; ++n) {
      const int64_t at = (first + n) % a_.positions * a_.width;
      turn(a_.key_cos + at, a_.key_sin + at, a_.width, rows + n * key_row);
    }
    products_.pack_keys(block, {rows, key_row, keys});
    gather(a_.value, a_.keys, first, keys, a_.depth, products_.step(), out_row, rows);
    products_.pack_values(block, {rows, out_row, keys});
  }

  void queries(int64_t first, int64_t last) {
    const int64_t rows = last - first, row = products_.key_row(), step = products_.step();
    const int64_t whole = (rows + Products::kQueryUnit - 1) / Products::kQueryUnit * Products::kQueryUnit;
    const Scratch memory(products_.own_floats() + kQueries * (row + step) + OnlineSoftmax::floats(products_.out_row()));
    float *q = memory.data() + products_.own_floats(), *logits = q + kQueries * row;
    products_.place(head_.packed, memory.data());
    OnlineSoftmax softmax;
    softmax.place(logits + kQueries * step, a_.depth, products_.out_row());
    gather(a_.query, a_.queries, first, rows, a_.width, whole, row, q);
    for (int64_t i = 0; a_.cos && i < rows; ++i)
      turn(a_.cos + (first + i) * a_.width, a_.sin + (first + i) * a_.width, a_.width, q + i * row);
    for (int64_t i = 0; i < whole * row; i += N) storeu(q + i, loadu(q + i) * broadcast(a_.scale * kLog2e));
    products_.load(q, whole);
    for (int64_t b = 0; b < head_.blocks(); ++b) {
      checkpoint();
      const int64_t keys = keys_of(b), padded = products_.padded(keys);
      products_.add_logits(b, whole, keys, logits, false);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t k = keys; k < padded; ++k) logits[i * step + k] = kLowest;
        softmax.weigh(i, b == 0, 0.f, logits + i * step, padded / N);
      }
      products_.add_values(b, whole, keys, logits, softmax.sums());
    }
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t token = (head_.image * a_.queries + first + i) * a_.heads + head_.head;
      const float log_weight = softmax.finish(i, a_.out + token * a_.depth);
      if (a_.log_weight) a_.log_weight[(head_.image * a_.heads + head_.head) * a_.queries + first + i] = log_weight;
    }
  }

 private:
  int64_t keys_of(int64_t block) const {
    const int64_t left = a_.keys - block * head_.block_keys();
    return left < head_.block_keys() ? left : head_.block_keys();
  }

  // The rows of `count` tokens of (images, tokens, heads, width), one every `row` floats; zeros behind them.
  void gather(const float* data, int64_t tokens, int64_t first, int64_t count, int64_t width, int64_t rows, int64_t row,
              float* to) const {
    for (int64_t i = 0; i < rows * row; i += N) storeu(to + i, broadcast(0.f));
    const float* from = data + ((head_.image * tokens + first) * a_.heads + head_.head) * width;
    for (int64_t n = 0; n < count; ++n) copy_floats(from + n * a_.heads * width, to + n * row, width);
  }

  const MemoryHead& head_;
  const MemoryRead& a_;
  Products products_;
};

}  // namespace

int64_t memory_floats(const MemoryHead& head) {
  return head.engine ? Read<Bf16Products>(head).packed_floats() : Read<Float32Products>(head).packed_floats();
}

void memory_pack(const MemoryHead& head, int64_t block) {
  head.engine ? Read<Bf16Products>(head).pack(block) : Read<Float32Products>(head).pack(block);
}

void memory_queries(const MemoryHead& head, int64_t first, int64_t last) {
  head.engine ? Read<Bf16Products>(head).queries(first, last) : Read<Float32Products>(head).queries(first, last);
}

}  // namespace FP_ISA
}  // namespace fastprompt
