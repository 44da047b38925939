#include "encoder/relative.h"

#include <algorithm>
#include <vector>

#include "common/parallel.h"

namespace fastprompt {
namespace {

constexpr int64_t kTasksPerThread = 8;  // a thread that loses its core delays little

// Blocks of nearly the same size: 197 keys are 112 and 85, not 128 and 69.
int64_t block_keys(int64_t count, int64_t most) {
  const int64_t blocks = (count + most - 1) / most;
  return ((count + blocks - 1) / blocks + 15) / 16 * 16;
}

struct Sets {
  int64_t most_keys;  // of a block
  std::vector<TokenSet> sets;
  std::vector<std::vector<Run>> runs;
  std::vector<std::vector<int64_t>> blocks;

  void add(int64_t image, std::vector<Run> all, int64_t height, int64_t columns) {
    std::vector<Run> cut;  // at the ends of blocks
    std::vector<int64_t> block;
    int64_t total = 1, count = 0;  // and the key of the padding
    for (const Run& run : all) total += run.count;
    const int64_t keys = block_keys(total, most_keys);
    for (const Run& run : all)
      for (int64_t k = 0; k < run.count;) {
        if (count % keys == 0) block.push_back(cut.size());
        const int64_t n = std::min(run.count - k, keys - count % keys);
        cut.push_back({run.token + k, count, n, run.y, static_cast<int32_t>(run.x + k)});
        k += n, count += n;
      }
    block.push_back(cut.size());
    runs.push_back(std::move(cut)), blocks.push_back(std::move(block));
    sets.push_back({image, count, keys, runs.back().data(), blocks.back().data(), height, columns});
  }
};

std::vector<Run> rectangle(int64_t top, int64_t left, int64_t height, int64_t columns, int64_t row) {
  std::vector<Run> runs;
  for (int32_t y = 0; y < height; ++y) runs.push_back({(top + y) * row + left, 0, columns, y, 0});
  return runs;
}

std::vector<Run> listed(const int32_t* yx, int64_t tokens) {
  std::vector<Run> runs;
  for (int64_t n = 0; n < tokens; ++n) {
    const int32_t y = yx[2 * n], x = yx[2 * n + 1];
    if (n && runs.back().y == y && runs.back().x + runs.back().count == x)
      ++runs.back().count;
    else
      runs.push_back({n, 0, 1, y, x});
  }
  return runs;
}

// `pool`: the places of a grid whose side is that much smaller.
Sets token_sets(const RelativeAttention& a, const Bf16* engine, int64_t pool = 1) {
  Sets found{engine ? kMaxKeysBf16 : kMaxKeys, {}, {}, {}};
  const int64_t grid_height = a.height / pool, grid_columns = a.columns / pool;
  const int64_t h = a.window_height ? a.window_height / pool : grid_height;
  const int64_t w = a.window_height ? a.window_columns / pool : grid_columns;
  for (int64_t image = 0; image < a.images; ++image) {
    if (a.coordinates) {
      found.add(image, listed(a.coordinates + image * a.coordinate_step, a.tokens), h, w);
      continue;
    }
    for (int64_t y = 0; y < grid_height; y += h)
      for (int64_t x = 0; x < grid_columns; x += w) {
        const int64_t height = std::min(h, grid_height - y), columns = std::min(w, grid_columns - x);
        found.add(image, rectangle(y, x, height, columns, grid_columns), height, columns);
      }
  }
  return found;
}

RelativeTable table(const float* rel, int64_t size, int64_t width, std::vector<float>& memory) {
  if (!rel) return {nullptr, size, 0};
  const int64_t rows = 2 * size - 1, step = (rows + 15) / 16 * 16;
  memory.assign(step * width, 0.f);
  for (int64_t j = 0; j < rows; ++j)
    for (int64_t d = 0; d < width; ++d) memory[d * step + j] = rel[(rows - 1 - j) * width + d] * 1.44269504f;
  return {memory.data(), size, step};
}

// A call and the memory of its tables.
struct Prepared {
  explicit Prepared(const RelativeAttention& a) {
    const bool windows = a.window_height > 0;
    call = {a, table(a.rel_h, windows ? a.window_height : a.height, a.width, h),
            table(a.rel_w, windows ? a.window_columns : a.columns, a.width, w), bf16(a.precision)};
  }
  RelativeCall call;
  std::vector<float> h, w;
};

}  // namespace

void relative_attention(const RelativeAttention& a) {
  if (a.images * a.tokens * a.heads == 0) return;
  const Prepared prepared(a);
  const Sets found = token_sets(a, prepared.call.engine);
  const Sets pooled = a.pool > 1 ? token_sets(a, prepared.call.engine, a.pool) : Sets{};
  const std::vector<TokenSet>& queries = a.pool > 1 ? pooled.sets : found.sets;  // one for one: a pool divides all
  const int64_t heads = queries.size() * a.heads;
  const int64_t wanted = a.threads == 1 ? 1 : (kTasksPerThread * a.threads + heads - 1) / heads;
  const int64_t parts = std::min(wanted, (queries[0].count + 63) / 64);
  parallel_for(a.threads, heads * parts, [&](int64_t task) {
    const int64_t head = task / parts % a.heads, set = task / parts / a.heads;
    FP_DISPATCH(relative_queries)(prepared.call, found.sets[set], queries[set], head, task % parts, parts);
  });
}

// One thread has a head from end to end, so that nothing is added up by two; the sums of the tables, which all heads
// share, are taken group by group in their order.
void relative_gradient(const RelativeGradient& g) {
  const RelativeAttention& a = g.forward;
  const int64_t rows_h = (2 * a.height - 1) * a.width, rows_w = (2 * a.columns - 1) * a.width;
  std::fill(g.rel_h_grad, g.rel_h_grad + rows_h, 0.f), std::fill(g.rel_w_grad, g.rel_w_grad + rows_w, 0.f);
  if (a.images * a.tokens * a.heads == 0) return;
  const Prepared prepared(a);
  const Sets found = token_sets(a, prepared.call.engine);
  const int64_t heads = found.sets.size() * a.heads, groups = std::min(heads, kTasksPerThread * a.threads);
  std::vector<float> sums(groups * (rows_h + rows_w), 0.f);
  parallel_for(a.threads, groups, [&](int64_t group) {
    float* rel_h = sums.data() + group * (rows_h + rows_w);
    for (int64_t n = heads * group / groups; n < heads * (group + 1) / groups; ++n) FP_DISPATCH(relative_head_gradient)
    (prepared.call, g, found.sets[n / a.heads], n % a.heads, rel_h, rel_h + rows_h);
  });
  for (int64_t group = 0; group < groups; ++group) {
    const float* from = sums.data() + group * (rows_h + rows_w);
    for (int64_t k = 0; k < rows_h; ++k) g.rel_h_grad[k] += from[k];
    for (int64_t k = 0; k < rows_w; ++k) g.rel_w_grad[k] += from[rows_h + k];
  }
}

}  // namespace fastprompt
