// Compiled with AMX, where the compiler has it.
#if defined(__AMX_BF16__)
#include "common/bf16_pack.h"

namespace fastprompt {

const Bf16& bf16_amx();

namespace {

// All eight tiles are 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfig kConfig{};

constexpr long kRightRow = kBf16Columns * 4;  // bytes between two rows of `right`

// Tiles 0 and 1, or 2 and 3, += left tile times 32 columns of `right`.
#define FP_LOAD_RIGHT(right)        \
  _tile_loadd(6, right, kRightRow); \
  _tile_loadd(7, (right) + 32, kRightRow)
#define FP_MULTIPLY(sum, next, left) \
  _tile_dpbf16ps(sum, left, 6);      \
  _tile_dpbf16ps(next, left, 7)

// 16 rows x 64 columns at a time: tiles 0 to 3 are the sums, 4 and 5 high and low part of the left operand. Three
// products read the sums once and the right side's high part once: 1700 GFLOP/s (depth 768), one product 1050, for it
// takes as long to load a unit as to multiply. 32 x 32 columns, with a fifth less of loads, were no faster.
template <bool Three>
void sixteen_rows(const Bf16Product& p, int64_t m) {
  const long left_row = p.layout.row * 2, out_row = p.out_row * 4;  // bytes
  float* out = p.out + m * p.out_row;
  if (p.add) {
    _tile_loadd(0, out, out_row);
    _tile_loadd(1, out + 16, out_row);
    _tile_loadd(2, out + 32, out_row);
    _tile_loadd(3, out + 48, out_row);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  int64_t left = m / kBf16Rows * p.layout.down;
  for (int64_t k = 0; k < p.depth; k += kBf16Depth, left += p.layout.along) {
    const uint16_t* right = p.right + k * kBf16Columns;
    _tile_loadd(4, p.left + left, left_row);
    if (Three) {
      _tile_loadd(5, p.left_low + left, left_row);
    }
    FP_LOAD_RIGHT(right);
    FP_MULTIPLY(0, 1, 4);
    if (Three) {
      FP_MULTIPLY(0, 1, 5);
    }
    FP_LOAD_RIGHT(right + 64);
    FP_MULTIPLY(2, 3, 4);
    if (Three) {
      FP_MULTIPLY(2, 3, 5);
      right = p.right_low + k * kBf16Columns;
      FP_LOAD_RIGHT(right);
      FP_MULTIPLY(0, 1, 4);
      FP_LOAD_RIGHT(right + 64);
      FP_MULTIPLY(2, 3, 4);
    }
  }
  _tile_stored(0, out, out_row);
  _tile_stored(1, out + 16, out_row);
  _tile_stored(2, out + 32, out_row);
  _tile_stored(3, out + 48, out_row);
}

void multiply_amx(const Bf16Product& p) {
  _tile_loadconfig(&kConfig);
  for (int64_t m = 0; m < p.rows; m += kBf16Rows) p.left_low ? sixteen_rows<true>(p, m) : sixteen_rows<false>(p, m);
  _tile_release();
}

constexpr Bf16 kEngine{"amx", true, multiply_amx, pack_right_avx512, pack_in_order_avx512};

}  // namespace

const Bf16& bf16_amx() { return kEngine; }

}  // namespace fastprompt
#endif
