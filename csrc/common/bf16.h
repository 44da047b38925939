// Products of bfloat16 numbers with sums in float32, where the machine has instructions for them.
//
// x = high + low, two bfloat16 numbers, has 16 bits of a float's 24: high * high is what
// torch.set_float32_matmul_precision calls "medium"; high * high + high * low + low * high has the error of float32 up
// to a few units and is its "high".
#pragma once
#include <cstddef>
#include <cstdint>

#include "common/isa.h"

namespace fastprompt {

enum class Precision : int { highest = 0, high = 1, medium = 2 };

constexpr int64_t kBf16Columns = 64;  // of `right`: a tile of image tokens with AVX-512
constexpr int64_t kBf16Depth = 32;    // unit of the depth; shorter operands are padded with zeros
constexpr int64_t kBf16Rows = 16;     // unit of the rows

// Where a left operand has its numbers: 16 rows x 32 numbers are a unit, of rows `row` apart; the next unit of the same
// rows is `along` away, the next 16 rows are `down` away.
struct Bf16Layout {
  int64_t row, along, down;
};
FP_INLINE constexpr Bf16Layout in_rows(int64_t row) { return {row, kBf16Depth, kBf16Rows * row}; }
// Each unit in a piece, so that AMX reads what comes from afar in its order.
FP_INLINE constexpr Bf16Layout in_units(int64_t depth) {
  return {kBf16Depth, kBf16Rows * kBf16Depth, kBf16Rows * depth};
}

// out (rows x 64) (+)= left (rows x depth) right (depth x 64)
struct Bf16Product {
  const uint16_t* left;   // (rows, depth)
  const uint16_t* right;  // (depth / 2, 64, 2): two rows of `right`, number by number
  float* out;             // (rows, 64), a row every `out_row`
  Bf16Layout layout;      // of `left`
  int64_t out_row, rows, depth;
  bool add;
  // Their low parts, or both null: then three products are added up.
  const uint16_t *left_low = nullptr, *right_low = nullptr;
};

struct Bf16 {
  const char* name;
  bool three_pay;  // three products take less time than one of float32
  void (*multiply)(const Bf16Product& product);
  // `high` and, unless null, `low` of rows of 64, one every `row`; rows from `rows` to `depth` are 0.
  void (*pack_right)(const float* from, int64_t row, int64_t rows, int64_t depth, uint16_t* high, uint16_t* low);
  // Of `count` numbers in their order, a multiple of 32: a left operand whose rows lie as they should.
  void (*pack_in_order)(const float* from, int64_t count, uint16_t* high, uint16_t* low);
};

// What computes in this precision here; null: float32 does. "plain" is C++ for the tests.
const Bf16* bf16(Precision precision);
const char* bf16_name();                // "amx", "avx512_bf16", "plain" or "none"
bool set_bf16(const char* name);        // for the tests; false: this machine has not got it
int64_t round_to_depth(int64_t depth);  // up to a multiple of kBf16Depth

uint16_t to_bf16(float x);  // to nearest, ties to even
float from_bf16(uint16_t x);

// high and low (or null) of a matrix, number [m][k] being from[m * row + k * step], as (rows, round_to_depth(depth)).
void pack_left(const float* from, ptrdiff_t row, ptrdiff_t step, int64_t rows, int64_t depth, uint16_t* high,
               uint16_t* low);

// out (+)= left right in one product or, where there are low parts, three.
struct Bf16Operand {
  const uint16_t *high, *low;
};
// The three products of `p`, or the one, by an engine that knows one at a time.
template <class Multiply>
void one_by_one(Bf16Product p, const Multiply& multiply) {
  multiply(p);
  if (!p.left_low) return;
  const uint16_t* left = p.left;
  p.add = true;
  p.left = p.left_low, multiply(p);
  p.left = left, p.right = p.right_low, multiply(p);
}

void multiply(const Bf16& engine, const Bf16Operand& left, const Bf16Layout& layout, const Bf16Operand& right,
              float* out, int64_t out_row, int64_t rows, int64_t depth, bool add);

}  // namespace fastprompt
