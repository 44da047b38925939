// Products of bfloat16 numbers with sums in float32, where the machine has instructions for them.
//
// x = high + low, two bfloat16 numbers, has 16 bits of a float's 24: high * high is what
// torch.set_float32_matmul_precision calls "medium"; high * high + high * low + low * high has the error of float32 up
// to a few units and is its "high".
#pragma once
#include <cstddef>
#include <cstdint>

namespace fastprompt {

enum class Precision : int { highest = 0, high = 1, medium = 2 };

constexpr int64_t kBf16Columns = 64;  // of `right`: a tile of image tokens with AVX-512
constexpr int64_t kBf16Depth = 32;    // unit of the depth; shorter operands are padded with zeros
constexpr int64_t kBf16Rows = 16;     // unit of the rows

// out (rows x 64) (+)= left (rows x depth) right (depth x 64)
struct Bf16Product {
  const uint16_t* left;   // (rows, depth), a row every `left_row`
  const uint16_t* right;  // (depth / 2, 64, 2): two rows of `right`, number by number
  float* out;             // (rows, 64), a row every `out_row`
  int64_t left_row, out_row, rows, depth;
  bool add;
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
void multiply(const Bf16& engine, const Bf16Operand& left, int64_t left_row, const Bf16Operand& right, float* out,
              int64_t out_row, int64_t rows, int64_t depth, bool add);

}  // namespace fastprompt
