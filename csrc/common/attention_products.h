// The two products of attention, logits and sums of values, in float32 or with a bfloat16 engine.
//
// Both forms pack a head's keys and values once, block by block: `pack_keys`, `pack_values`; then for the queries of
// `load`, `add_logits` and `add_values` take the blocks one after the other. Objects of several threads may share what
// is packed; the rest of the memory is their own.
#pragma once
#include "common/bf16.h"
#include "common/slabs.h"

namespace fastprompt {
namespace FP_ISA {

// What the packing of a block needs: its tokens, of which those behind `keys` are zeros.
struct KeyBlock {
  float* rows;  // (step, row)
  int64_t row, keys;
};

struct ProductSizes {
  int64_t width, depth;  // of a key, of a value
  int64_t keys, blocks;  // of a block, of all
  const Bf16* engine;
  bool three;  // products of bfloat16 numbers for one
};

class Float32Products {
 public:
  static constexpr int64_t kQueryUnit = 8;  // queries are computed in multiples of it
  explicit Float32Products(const ProductSizes& s)
      : width_(s.width), key_row_(whole(s.width)), out_row_(whole(s.depth)), step_(s.keys), blocks_(s.blocks) {}

  int64_t packed_floats() const { return blocks_ * (key_block() + value_block()); }
  int64_t own_floats() const { return 0; }
  void place(float* packed, float*) { keys_ = packed, values_ = packed + blocks_ * key_block(); }
  int64_t step() const { return step_; }        // from row to row of logits
  int64_t key_row() const { return key_row_; }  // of a block of keys to be packed
  int64_t out_row() const { return out_row_; }  // of a block of values, and of the sums
  int64_t padded(int64_t keys) const { return whole(keys); }

  void pack_keys(int64_t b, const KeyBlock& from) {
    turned_to_slabs(from.rows, from.keys, key_row_, keys_ + b * key_block());
  }
  void pack_values(int64_t b, const KeyBlock& from) {
    rows_to_slabs(from.rows, from.keys, out_row_, step_, values_ + b * value_block());
  }
  void load(const float* queries, int64_t) { queries_ = queries; }

  // logits (rows, step) = the products, or += them.
  void add_logits(int64_t b, int64_t rows, int64_t keys, float* logits, bool add) const {
    const Left left{queries_, key_row_, 1};
    const float* from = keys_ + b * key_block();
    const int64_t vectors = padded(keys) / N;
    add ? multiply_slabs<true>(left, from, key_row_, logits, step_, rows, vectors, width_)
        : multiply_slabs<false>(left, from, key_row_, logits, step_, rows, vectors, width_);
  }
  void add_values(int64_t b, int64_t rows, int64_t keys, const float* weights, float* sums) const {
    const Left left{weights, step_, 1};
    const float* values = values_ + b * value_block();
    b == 0 ? multiply_slabs<false>(left, values, step_, sums, out_row_, rows, out_row_ / N, keys)
           : multiply_slabs<true>(left, values, step_, sums, out_row_, rows, out_row_ / N, keys);
  }

 private:
  static int64_t whole(int64_t n) { return (n + N - 1) / N * N; }
  int64_t key_block() const { return Slabs::floats(key_row_, step_); }
  int64_t value_block() const { return Slabs::floats(step_, out_row_); }

  int64_t width_, key_row_, out_row_, step_, blocks_;
  const float* queries_ = nullptr;
  float *keys_ = nullptr, *values_ = nullptr;
};

// Operands of an engine: high and, if three products are asked for, low parts.
class Bf16Products {
 public:
  static constexpr int64_t kQueryUnit = kBf16Rows;
  explicit Bf16Products(const ProductSizes& s)
      : engine_(*s.engine),
        parts_(s.three ? 2 : 1),
        step_((s.keys + kBf16Columns - 1) / kBf16Columns * kBf16Columns),
        depth_((s.width + kBf16Depth - 1) / kBf16Depth * kBf16Depth),
        columns_((s.depth + kBf16Columns - 1) / kBf16Columns * kBf16Columns),
        blocks_(s.blocks) {}

  int64_t packed_floats() const { return blocks_ * step_ * (depth_ + columns_) * parts_ / 2; }
  int64_t own_floats() const { return kQueries * (depth_ + step_) * parts_ / 2 + kBf16Columns * depth_; }
  void place(float* packed, float* own) {
    keys_ = reinterpret_cast<uint16_t*>(packed), values_ = keys_ + blocks_ * step_ * depth_ * parts_;
    queries_ = reinterpret_cast<uint16_t*>(own), weights_ = queries_ + kQueries * depth_ * parts_;
    room_ = own + kQueries * (depth_ + step_) * parts_ / 2;
  }
  int64_t step() const { return step_; }
  int64_t key_row() const { return depth_; }
  int64_t out_row() const { return columns_; }
  int64_t padded(int64_t keys) const { return (keys + kBf16Depth - 1) / kBf16Depth * kBf16Depth; }

  void pack_keys(int64_t b, const KeyBlock& from) {
    for (int64_t n = 0; n < step_; n += kBf16Columns) {
      for (int64_t k = 0; k < kBf16Columns; k += N)
        for (int64_t d = 0; d < depth_; d += N)
          transpose_tile(from.rows + (n + k) * depth_ + d, depth_, room_ + d * kBf16Columns + k, kBf16Columns);
      pack(room_, kBf16Columns, depth_, depth_, keys_ + (b * step_ + n) * depth_ * parts_);
    }
  }
  void pack_values(int64_t b, const KeyBlock& from) {
    for (int64_t d = 0; d < columns_; d += kBf16Columns)
      pack(from.rows + d, columns_, from.keys, padded(from.keys), values_ + (b * columns_ + d) * step_ * parts_);
  }
  void load(const float* queries, int64_t rows) {
    engine_.pack_in_order(queries, rows * depth_, queries_, low(queries_, kQueries * depth_));
  }

  void add_logits(int64_t b, int64_t rows, int64_t keys, float* logits, bool add) const {
    const Bf16Operand left{queries_, low(queries_, kQueries * depth_)};
    for (int64_t n = 0; n < keys; n += kBf16Columns)
      multiply(engine_, left, in_rows(depth_), right(keys_ + (b * step_ + n) * depth_ * parts_, depth_), logits + n,
               step_, rows, depth_, add);
  }
  void add_values(int64_t b, int64_t rows, int64_t keys, const float* weights, float* sums) const {
    const Bf16Operand left{weights_, low(weights_, kQueries * step_)};
    engine_.pack_in_order(weights, rows * step_, weights_, low(weights_, kQueries * step_));
    for (int64_t d = 0; d < columns_; d += kBf16Columns)
      multiply(engine_, left, in_rows(step_), right(values_ + (b * columns_ + d) * step_ * parts_, padded(keys)),
               sums + d, columns_, rows, padded(keys), b > 0);
  }

 private:
  uint16_t* low(uint16_t* high, int64_t count) const { return parts_ == 2 ? high + count : nullptr; }
  Bf16Operand right(uint16_t* high, int64_t depth) const { return {high, low(high, depth * kBf16Columns)}; }
  void pack(const float* from, int64_t row, int64_t rows, int64_t depth, uint16_t* to) const {
    engine_.pack_right(from, row, rows, depth, to, low(to, depth * kBf16Columns));
  }

  const Bf16& engine_;
  const int64_t parts_, step_, depth_, columns_, blocks_;
  uint16_t *keys_ = nullptr, *values_ = nullptr, *queries_ = nullptr, *weights_ = nullptr;
  float* room_ = nullptr;  // (depth, 64)
};

}  // namespace FP_ISA
}  // namespace fastprompt
