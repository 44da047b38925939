#include "encoder/layer.h"

#include <algorithm>
#include <initializer_list>

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {
namespace {

// The weights of a call in bfloat16, made anew at every call: 0.2 % of the time of ViT-B's layer, and nothing that
// could be out of date.
class Weights {
 public:
  Weights(std::initializer_list<Matrix*> matrices, const Bf16* engine, bool three, int threads)
      : memory_(engine ? floats(matrices, three) : 0) {
    auto* to = reinterpret_cast<uint16_t*>(memory_.data());
    for (Matrix* m : matrices) {
      if (!engine) continue;
      const int64_t count = m->rows * m->depth;
      uint16_t *high = to, *low = three ? to + count : nullptr;
      parallel_for(threads, m->rows / kBf16Rows, [&](int64_t block) {
        const int64_t size = kBf16Rows * m->depth, at = block * size;
        engine->pack_in_order(m->data + at, size, high + at, low ? low + at : nullptr);
      });
      m->high = high, m->low = low;
      to += count * (three ? 2 : 1);
    }
  }

 private:
  static std::size_t floats(std::initializer_list<Matrix*> matrices, bool three) {
    std::size_t numbers = 0;
    for (const Matrix* m : matrices) numbers += m->rows * m->depth * (three ? 2 : 1);
    return numbers / 2;
  }

  Scratch memory_;
};

const Bf16* engine_for(std::initializer_list<Matrix*> matrices, Precision precision) {
  for (const Matrix* m : matrices)
    if (m->depth % kBf16Depth) return nullptr;
  return bf16(precision);
}

template <class Args, class Body>
void by_tiles(const Args& args, std::initializer_list<Matrix*> matrices, Precision precision, int threads,
              const Body& body) {
  const Bf16* engine = engine_for(matrices, precision);
  const Weights weights(matrices, engine, precision == Precision::high, threads);
  prefer_huge_pages(args.out, args.tokens * matrices.end()[-1]->rows * sizeof(float));
  parallel_for(threads, (args.tokens + kTokens - 1) / kTokens, [&](int64_t tile) { body(engine, tile); });
}

}  // namespace

void normalised_linear(NormalisedLinear a, Precision precision, int threads) {
  by_tiles(a, {&a.linear}, precision, threads, [&](const Bf16* engine, int64_t tile) {
    FP_DISPATCH(normalised_linear_tile)(a, engine, tile);
  });
}

void residual_mlp(ResidualMlp a, Precision precision, int threads) {
  by_tiles(a, {&a.project, &a.mlp1, &a.mlp2}, precision, threads, [&](const Bf16* engine, int64_t tile) {
    FP_DISPATCH(residual_mlp_tile)(a, engine, tile);
  });
}

}  // namespace fastprompt
