#include "decoder/head.h"

#include "attention/prompt.h"
#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {
namespace {

// Memory of a left operand of `count` matrices (rows x depth).
class Packed {
 public:
  Packed(int64_t count, int64_t rows, int64_t depth, bool split)
      : size(rows * round_to_depth(depth)),
        total_(count * size),
        split_(split),
        memory_((split ? 2 : 1) * total_ / 2 + 1) {}
  uint16_t* high_at(int64_t k) const { return reinterpret_cast<uint16_t*>(memory_.data()) + k * size; }
  uint16_t* low_at(int64_t k) const { return split_ ? high_at(k) + total_ : nullptr; }
  Bf16Operand operand() const { return {high_at(0), low_at(0)}; }
  const int64_t size;

 private:
  const int64_t total_;
  const bool split_;
  Scratch memory_;
};

void run(const MaskHead& a) {
  const int64_t tile = FP_DISPATCH(prompt_tile)(), tiles = (a.height * a.width + tile - 1) / tile;
  parallel_for(a.threads, a.prompts * tiles, [&](int64_t k) { FP_DISPATCH(mask_head_tile)(a, k / tiles, k % tiles); });
}

void run_packed(MaskHead a, bool split) {
  const int64_t up = 4 * a.middle, deep = 4 * a.depth, rank = a.layout.rank(a.layout.depth);
  const int64_t tile = FP_DISPATCH(prompt_tile)(), tiles = (a.height * a.width + tile - 1) / tile;
  Packed second(1, deep, a.middle, split), rows(a.prompts, up, rank, split);
  pack_left(a.weight2, 1, deep, deep, a.middle, second.high_at(0), second.low_at(0));
  constexpr int64_t kBlock = 16;  // rows
  parallel_for(a.threads, a.prompts * up / kBlock, [&](int64_t block) {
    const int64_t k = block / (up / kBlock), row = block % (up / kBlock) * kBlock;
    const float* from = a.low_rank + k * a.layout.prompt_rows() * (up + tiles * tile) + up + row;
    const int64_t at = row * round_to_depth(rank);
    pack_left(from, 1, up, kBlock, rank, rows.high_at(k) + at, split ? rows.low_at(k) + at : nullptr);
  });
  a.packed2 = second.operand(), a.low_rank_rows = rows.operand();
  run(a);
}

}  // namespace

void mask_head(const MaskHead& args) {
  MaskHead a = args;
  const bool fits = !a.image && a.middle % 8 == 0 && a.depth % 4 == 0;  // whole blocks of rows
  a.engine = fits ? bf16(a.precision) : nullptr;
  a.engine ? run_packed(a, a.precision == Precision::high) : run(a);
}

}  // namespace fastprompt
