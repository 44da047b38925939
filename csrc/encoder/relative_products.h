// The two products of attention, logits and sums of values, in float32 or with a bfloat16 engine.
//
// Both forms pack a head's keys and values once, block by block: `pack`; then for the queries of `load`, `add_logits`
// and `add_values` take the blocks one after the other.
#pragma once
#include "encoder/relative_tile.h"

namespace fastprompt {
namespace FP_ISA {

// What the packing of a block needs: its tokens, of which those behind `keys` are zeros.
struct KeyBlock {
  float* rows;  // (step, row)
  int64_t row, keys;
};

class Float32Products {
 public:
  static constexpr int64_t kQueryUnit = 8;  // queries are computed in multiples of it
  Float32Products(const RelativeCall& call, int64_t keys, int64_t blocks) : width_(call.args.width), step_(keys) {
    values_offset_ = blocks * key_block();
    floats_ = values_offset_ + blocks * value_block();
  }

  int64_t floats() const { return floats_; }
  void place(float* memory) { keys_ = memory, values_ = memory + values_offset_; }
  int64_t step() const { return step_; }      // from row to row of logits
  int64_t key_row() const { return width_; }  // of a block of keys to be packed
  int64_t out_row() const { return width_; }  // of a block of values, and of the sums
  int64_t padded(int64_t keys) const { return (keys + N - 1) / N * N; }

  void pack_keys(int64_t b, const KeyBlock& from) {
    turned_to_slabs(from.rows, from.keys, width_, keys_ + b * key_block());
  }
  void pack_values(int64_t b, const KeyBlock& from) {
    rows_to_slabs(from.rows, from.keys, width_, step_, values_ + b * value_block());
  }
  void load(const float* queries, int64_t) { queries_ = queries; }

  void add_logits(int64_t b, int64_t rows, int64_t keys, float* logits) const {
    multiply_slabs<true>({queries_, width_, 1}, keys_ + b * key_block(), width_, logits, step_, rows, padded(keys) / N,
                         width_);
  }
  void add_values(int64_t b, int64_t rows, int64_t keys, const float* weights, float* sums) const {
    const Left left{weights, step_, 1};
    const float* values = values_ + b * value_block();
    b == 0 ? multiply_slabs<false>(left, values, step_, sums, width_, rows, width_ / N, keys)
           : multiply_slabs<true>(left, values, step_, sums, width_, rows, width_ / N, keys);
  }

 private:
  int64_t key_block() const { return Slabs::floats(width_, step_); }
  int64_t value_block() const { return Slabs::floats(step_, width_); }

  int64_t width_, step_, values_offset_, floats_;
  const float* queries_ = nullptr;
  float *keys_ = nullptr, *values_ = nullptr;
};

// Operands of an engine, in memory counted in floats: high and, if three products are asked for, low parts.
class Bf16Products {
 public:
  static constexpr int64_t kQueryUnit = kBf16Rows;
  Bf16Products(const RelativeCall& call, int64_t keys, int64_t blocks)
      : engine_(*call.engine),
        parts_(call.args.precision == Precision::high ? 2 : 1),
        step_((keys + kBf16Columns - 1) / kBf16Columns * kBf16Columns),
        depth_((call.args.width + kBf16Depth - 1) / kBf16Depth * kBf16Depth),
        columns_((call.args.width + kBf16Columns - 1) / kBf16Columns * kBf16Columns) {
    const int64_t sizes[] = {blocks * step_ * depth_, blocks * step_ * columns_, kQueries * depth_, kQueries * step_};
    for (int k = 0; k < 4; ++k) offsets_[k + 1] = offsets_[k] + sizes[k] * parts_;
    turned_ = offsets_[4] / 2;
  }

  int64_t floats() const { return turned_ + kBf16Columns * depth_; }
  void place(float* memory) {
    auto* at = reinterpret_cast<uint16_t*>(memory);
    keys_ = at, values_ = at + offsets_[1], queries_ = at + offsets_[2], weights_ = at + offsets_[3];
    room_ = memory + turned_;
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

  void add_logits(int64_t b, int64_t rows, int64_t keys, float* logits) const {
    const Bf16Operand left{queries_, low(queries_, kQueries * depth_)};
    for (int64_t n = 0; n < keys; n += kBf16Columns)
      multiply(engine_, left, in_rows(depth_), right(keys_ + (b * step_ + n) * depth_ * parts_, depth_), logits + n,
               step_, rows, depth_, true);
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
  const int64_t parts_, step_, depth_, columns_;
  int64_t offsets_[5] = {}, turned_;
  uint16_t *keys_ = nullptr, *values_ = nullptr, *queries_ = nullptr, *weights_ = nullptr;
  float* room_ = nullptr;  // (depth, 64)
};

}  // namespace FP_ISA
}  // namespace fastprompt
