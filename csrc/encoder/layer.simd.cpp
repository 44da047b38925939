#include "encoder/layer.h"

#include "common/gemm.h"
#include "common/interrupt.h"
#include "common/layer_norm.h"
#include "common/scratch.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

// Rows of a weight that are multiplied with a tile at a time: with 768 channels they and the tile fit the second-level
// cache, and whole blocks of registers: see kWideRows.
constexpr int64_t kBlock = 48;
// A tile lies in slabs of this many tokens, each of all rows: what a block of registers walks along is one piece, for
// rows 256 bytes apart share a quarter of the first-level cache. With AVX2 and 768 channels, before and after, GFLOP/s:
// the linear layer 79 to 81 and 86 to 90, the MLP 70 to 77 and 85 to 87.
constexpr int64_t kSlab = N == 16 ? kTokens : 2 * N;
// Numbers that are summed up in a row in float32: the error of a sum grows with the root of its length.
constexpr int64_t kDepth = 256;

// (height, 64) numbers in slabs; an engine takes one slab.
struct Tile {
  float* data;
  int64_t height, slab;
  float* at(int64_t row, int64_t token) const {  // rows behind it are `slab` apart
    return data + token / slab * height * slab + row * slab + token % slab;
  }
};

// body(first token of a slab, its rows from `row` on)
template <class Body>
void by_slabs(const Tile& tile, int64_t row, const Body& body) {
  for (int64_t t = 0; t < kTokens; t += tile.slab) body(t, tile.at(row, t));
}

// The right side of products: a tile, packed where an engine multiplies.
class Right {
 public:
  Right() = default;
  static int64_t floats(const Bf16* engine, int64_t depth) { return engine ? whole(depth) * kTokens : 0; }
  Right(const Bf16* engine, bool low, int64_t depth, float* memory)
      : engine_(engine),
        high_(reinterpret_cast<uint16_t*>(memory)),
        low_(low ? high_ + whole(depth) * kTokens : nullptr) {}

  // The first `depth` rows.
  void set(const Tile& tile, int64_t depth) {
    tile_ = tile, depth_ = depth;
    if (engine_) engine_->pack_right(tile.data, kTokens, depth, whole(depth), high_, low_);
  }

  // Rows of `out` from `to` on (+)= the part [row, row + rows) x [column, column + depth) of a weight, times this.
  template <bool Add>
  void multiply(const Matrix& w, int64_t row, int64_t rows, int64_t column, const Tile& out, int64_t to) const {
    if (engine_) {
      const Bf16Layout units = in_units(whole(w.depth));
      const int64_t at = row / kBf16Rows * units.down + column / kBf16Depth * units.along;
      const Bf16Operand left{w.high + at, w.low ? w.low + at : nullptr};
      return ::fastprompt::multiply(*engine_, left, units, {high_, low_}, out.at(to, 0), kTokens, rows, whole(depth_),
                                    Add);
    }
    const int64_t at = row * w.depth + column;
    for (int64_t k = 0; k < depth_; k += kDepth) {
      const Left left{w.data + at + k, w.depth, 1};
      const int64_t depth = depth_ - k < kDepth ? depth_ - k : kDepth;
      by_slabs(out, to, [&](int64_t t, float* product) {
        k || Add ? gemm<true>(left, tile_.at(k, t), kSlab, product, kSlab, rows, kSlab / N, depth)
                 : gemm<false>(left, tile_.at(k, t), kSlab, product, kSlab, rows, kSlab / N, depth);
      });
    }
  }

 private:
  static int64_t whole(int64_t depth) { return (depth + kBf16Depth - 1) / kBf16Depth * kBf16Depth; }

  const Bf16* engine_ = nullptr;
  Tile tile_{};
  int64_t depth_ = 0;
  uint16_t *high_ = nullptr, *low_ = nullptr;
};

// The right sides of the tiles that are worked on together: a block of a weight is read once for all of them.
class Group {
 public:
  Right& add(const Right& right) { return rights_[size_++] = right; }
  Right& operator[](int64_t n) { return rights_[n]; }

 private:
  Right rights_[kGroup];
  int64_t size_ = 0;
};

// The tokens from `first` on, as columns; zeros behind the last.
void load_tile(const float* x, int64_t first, int64_t tokens, int64_t channels, const Tile& tile) {
  for (int64_t t = 0; t < kTokens; t += N) {
    const float* rows = x + (first + t) * channels;
    const int64_t count = tokens - first - t;
    for (int64_t c = 0; c < channels; c += N) {
      float* to = tile.at(c, t);
      if (count >= N) {
        transpose_tile(rows + c, channels, to, tile.slab);
        continue;
      }
      for (int64_t k = 0; k < N; ++k)
        for (int64_t i = 0; i < N; ++i) to[k * tile.slab + i] = i < count ? rows[i * channels + c + k] : 0;
    }
  }
}

void normalise(const float* bias, const LayerNorm& norm, const Tile& x, const Tile& out) {
  by_slabs(x, 0,
           [&](int64_t t, float* from) { add_bias_and_normalise(x.height, x.slab, bias, norm, from, out.at(0, t)); });
}

// The first `rows` of a tile, plus their bias, to the columns of `out` (tokens, channels) from `row` on. Changes the
// tile.
void store_rows(const Tile& tile, int64_t row, int64_t rows, const float* bias, int64_t first, int64_t tokens,
                int64_t channels, float* out) {
  for (int64_t r = 0; r < rows; r += N) {
    for (int64_t t = 0; t < kTokens; t += N) {
      float *from = tile.at(r, t), *to = out + (first + t) * channels + row + r;
      for (int64_t k = 0; k < N; ++k)
        storeu(from + k * tile.slab, loadu(from + k * tile.slab) + broadcast(bias[row + r + k]));
      const int64_t count = tokens - first - t;
      if (count >= N) {
        transpose_tile(from, tile.slab, to, channels);
        continue;
      }
      for (int64_t i = 0; i < count; ++i)
        for (int64_t k = 0; k < N; ++k) to[i * channels + k] = from[k * tile.slab + i];
    }
  }
}

// The first `rows` of a tile.
void activate(Activation activation, const float* bias, int64_t rows, const Tile& tile) {
  const vf zero = broadcast(0.f);
  by_slabs(tile, 0, [&](int64_t, float* at) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t t = 0; t < tile.slab; t += N, at += N) {
        const vf x = loadu(at) + broadcast(bias[r]);
        storeu(at, activation == Activation::gelu ? gelu(x) : max(x, zero));
      }
  });
}

// body(first, count), block by block; each is a checkpoint
template <class Body>
void by_blocks(int64_t rows, int64_t block, const Body& body) {
  for (int64_t row = 0; row < rows; row += block) {
    checkpoint();
    body(row, rows - row < block ? rows - row : block);
  }
}

}  // namespace

void normalised_linear_tiles(const NormalisedLinear& a, const Bf16* engine, int64_t begin, int64_t end) {
  const int64_t channels = a.linear.depth, packed = Right::floats(engine, channels);
  const int64_t kept = engine ? 1 : end - begin;  // of float32 tiles: an engine multiplies what is packed
  const int64_t slab = engine ? kTokens : kSlab;
  Scratch memory((channels * kept + kBlock) * kTokens + packed * (end - begin));
  float *tiles = memory.data() + kBlock * kTokens, *rights = tiles + channels * kTokens * kept;
  const Tile block{memory.data(), kBlock, slab};
  Group group;
  for (int64_t tile = begin; tile < end; ++tile) {
    const Tile x{tiles + (engine ? 0 : tile - begin) * channels * kTokens, channels, slab};
    load_tile(a.x, tile * kTokens, a.tokens, channels, x);
    if (a.norm.weight) normalise(nullptr, a.norm, x, x);
    group.add(Right(engine, a.linear.low, channels, rights + (tile - begin) * packed)).set(x, channels);
  }
  by_blocks(a.linear.rows, kBlock, [&](int64_t row, int64_t rows) {
    for (int64_t tile = begin; tile < end; ++tile) {
      group[tile - begin].multiply<false>(a.linear, row, rows, 0, block, 0);
      store_rows(block, row, rows, a.linear.bias, tile * kTokens, a.tokens, a.linear.rows, a.out);
    }
  });
}

void residual_mlp_tiles(const ResidualMlp& a, const Bf16* engine, int64_t begin, int64_t end) {
  constexpr int64_t kHidden = 256;  // inner numbers of the MLP that exist at a time
  const int64_t channels = a.project.rows, count = end - begin, slab = engine ? kTokens : kSlab;
  const int64_t widest = channels > a.project.depth ? channels : a.project.depth;
  const int64_t packed = Right::floats(engine, widest), inner_packed = Right::floats(engine, kHidden);
  const int64_t kept = engine ? 1 : count;
  Scratch memory((channels * count + widest * kept + kHidden * kept) * kTokens + (packed + inner_packed) * count);
  float *ys = memory.data(), *xs = ys + channels * kTokens * count, *hiddens = xs + widest * kTokens * kept;
  float *rights = hiddens + kHidden * kTokens * kept, *inners = rights + packed * count;
  const auto y = [&](int64_t n) { return Tile{ys + n * channels * kTokens, channels, slab}; };
  const auto x = [&](int64_t n, int64_t height) {
    return Tile{xs + (engine ? 0 : n) * widest * kTokens, height, slab};
  };
  const auto hidden = [&](int64_t n) { return Tile{hiddens + (engine ? 0 : n) * kHidden * kTokens, kHidden, slab}; };
  Group group, inner;

  for (int64_t n = 0; n < count; ++n) {
    const int64_t first = (begin + n) * kTokens;
    const Tile attended = x(n, a.project.depth);
    load_tile(a.attended, first, a.tokens, a.project.depth, attended);
    load_tile(a.x, first, a.tokens, channels, y(n));
    group.add(Right(engine, a.project.low, widest, rights + n * packed)).set(attended, a.project.depth);
    inner.add(Right(engine, a.project.low, kHidden, inners + n * inner_packed));
  }
  by_blocks(channels, kBlock, [&](int64_t row, int64_t rows) {
    for (int64_t n = 0; n < count; ++n) group[n].multiply<true>(a.project, row, rows, 0, y(n), row);
  });
  for (int64_t n = 0; n < count; ++n) {
    normalise(a.project.bias, a.norm, y(n), x(n, channels));
    group[n].set(x(n, channels), channels);
  }
  by_blocks(a.mlp1.rows, kHidden, [&](int64_t start, int64_t size) {
    for (int64_t n = 0; n < count; ++n) {
      by_blocks(size, kBlock, [&](int64_t row, int64_t rows) {
        group[n].multiply<false>(a.mlp1, start + row, rows, 0, hidden(n), row);
      });
      activate(a.activation, a.mlp1.bias + start, size, hidden(n));
      inner[n].set(hidden(n), size);
    }
    by_blocks(channels, kBlock, [&](int64_t row, int64_t rows) {
      for (int64_t n = 0; n < count; ++n) inner[n].multiply<true>(a.mlp2, row, rows, start, y(n), row);
    });
  });
  for (int64_t n = 0; n < count; ++n)
    store_rows(y(n), 0, channels, a.mlp2.bias, (begin + n) * kTokens, a.tokens, channels, a.out);
}

}  // namespace FP_ISA
}  // namespace fastprompt
