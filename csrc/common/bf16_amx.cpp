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

// 16 rows x 64 columns at a time: tiles 0 to 3 are the sums, 4 the left operand, 5 to 7 and 5 the right ones.
void multiply_amx(const Bf16Product& p) {
  _tile_loadconfig(&kConfig);
  const long left_row = p.left_row * 2, row = kBf16Columns * 4, out_row = p.out_row * 4;  // bytes
  for (int64_t m = 0; m < p.rows; m += kBf16Rows) {
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
    for (int64_t k = 0; k < p.depth; k += kBf16Depth) {
      const uint16_t* right = p.right + k * kBf16Columns;
      _tile_loadd(4, p.left + m * p.left_row + k, left_row);
      _tile_loadd(5, right, row);
      _tile_loadd(6, right + 32, row);
      _tile_loadd(7, right + 64, row);
      _tile_dpbf16ps(0, 4, 5);
      _tile_loadd(5, right + 96, row);
      _tile_dpbf16ps(1, 4, 6);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, out, out_row);
    _tile_stored(1, out + 16, out_row);
    _tile_stored(2, out + 32, out_row);
    _tile_stored(3, out + 48, out_row);
  }
  _tile_release();
}

constexpr Bf16 kEngine{"amx", true, multiply_amx, pack_right_avx512, pack_in_order_avx512};

}  // namespace

const Bf16& bf16_amx() { return kEngine; }

}  // namespace fastprompt
#endif
