// Scoring, selection and merging of tokens of an exported model.

#include "export/node.h"
#include "pruning/merge.h"
#include "pruning/rows.h"
#include "pruning/score.h"
#include "pruning/select.h"

namespace fastprompt {
namespace {

Sizes rows_of(Node& node, size_t n) {
  const Sizes shape = node.input(n).shape;
  need(shape.size() == 3, "tokens must be (B, N, C)");
  return shape;
}

Rows rows(const float* data, int64_t count, int64_t channels) {
  const int64_t bytes = sizeof(float) * channels;
  return {reinterpret_cast<char*>(const_cast<float*>(data)), count, {count * bytes, bytes}};
}

void cosine(Node& node) {
  const Sizes tokens = rows_of(node, 0), prompts = rows_of(node, 1);
  need(prompts[2] == tokens[2] && (prompts[0] == 1 || prompts[0] == tokens[0]) && prompts[1] > 0,
       "prompts must be (B or 1, P, C)");
  CosineScores a{};
  a.batch = tokens[0], a.tokens = tokens[1], a.channels = tokens[2], a.prompts = prompts[1];
  a.data = node.floats(0), a.stride[0] = tokens[1] * tokens[2], a.stride[1] = tokens[2];
  a.prompt = node.floats(1), a.prompt_images = prompts[0], a.threads = node.threads;
  a.out = node.float_output(0, {tokens[0], tokens[1]});
  if (a.batch * a.tokens > 0) cosine_scores(a);
}

void prune(Node& node) {
  const Sizes tokens = rows_of(node, 0);
  const int64_t batch = tokens[0], count = node.attributes.size("count");
  need(count <= tokens[1], "count must be at most the number of tokens");
  need(node.input(1).shape == Sizes{batch, tokens[1]}, "scores must be (B, N)");
  SelectTokens a{};
  a.batch = batch, a.tokens = tokens[1], a.count = count, a.scores = node.floats(1), a.threads = node.threads;
  const Input always = node.input(2);
  need(always.absent() || always.shape == Sizes{batch, tokens[1]}, "always must be (B, N)");
  if (!always.absent() || batch * tokens[1] == 1) a.always = node.bytes(2);
  a.index = node.index_output(1, {batch, count});
  float* kept = node.float_output(0, {batch, count, tokens[2]});
  if (batch * count == 0) return;
  need(select_tokens(a) < 0, "always marks more tokens than are kept");
  const int64_t bytes = sizeof(float) * tokens[2];
  gather_rows(
      {batch, bytes, rows(node.floats(0), tokens[1], tokens[2]), a.index, rows(kept, count, tokens[2]), node.threads});
}

Sizes index_of(Node& node, size_t n, int64_t batch) {
  const Sizes shape = node.input(n).shape;
  need(shape.size() == 2 && shape[0] == batch, "index must be (B, K)");
  return shape;
}

void gather(Node& node) {
  const Sizes from = rows_of(node, 0), index = index_of(node, 1, from[0]);
  float* out = node.float_output(0, {index[0], index[1], from[2]});
  const int64_t bytes = sizeof(float) * from[2];
  if (index[0] * index[1] * from[2] > 0)
    gather_rows({from[0], bytes, rows(node.floats(0), from[1], from[2]), node.indices(1), rows(out, index[1], from[2]),
                 node.threads});
}

void scatter(Node& node) {
  const Sizes from = rows_of(node, 1), index = index_of(node, 2, from[0]);
  const int64_t count = node.attributes.size("count"), bytes = sizeof(float) * from[2];
  need(index[1] == from[1], "index must have a number for each row");
  const Sizes whole{from[0], count, from[2]};
  const bool given = node.input(0).shape == whole;
  need(given || node.input(0).absent(), "base must be (B, count, C)");
  float* out = node.float_output(0, whole);
  if (product({from[0], count, from[2]}) == 0) return;
  const Rows base = given ? rows(node.floats(0), count, from[2]) : Rows{nullptr, 0, {0, 0}};
  scatter_rows({from[0], bytes, base, rows(node.floats(1), from[1], from[2]), node.indices(2),
                rows(out, count, from[2]), node.threads});
}

void match(Node& node) {
  const Sizes metric = rows_of(node, 0);
  MatchTokens a{};
  a.batch = metric[0], a.tokens = metric[1], a.width = metric[2];
  a.merged = node.attributes.size("merged"), a.spared = node.attributes.size("spared");
  need(a.spared <= a.tokens && a.merged <= (a.tokens - a.spared) / 2, "merged must be at most (N - spared) / 2");
  a.metric = node.floats(0), a.threads = node.threads;
  a.kept = node.index_output(0, {a.batch, a.tokens - a.merged}), a.target = node.index_output(1, {a.batch, a.tokens});
  if (a.batch * a.tokens > 0) match_tokens(a);
}

void merge(Node& node) {
  const Sizes tokens = rows_of(node, 0), kept = index_of(node, 2, tokens[0]);
  MergeRows a{};
  a.batch = tokens[0], a.tokens = tokens[1], a.channels = tokens[2], a.merged = tokens[1] - kept[1];
  const Sizes each{a.batch, a.tokens};
  need(a.merged >= 0 && node.input(1).shape == each && node.input(3).shape == each, "size and target must be (B, N)");
  a.data = node.floats(0), a.size = node.floats(1), a.kept = node.indices(2), a.target = node.indices(3);
  for (int64_t k = 0; k < a.batch * a.tokens; ++k)
    need(a.target[k] >= 0 && a.target[k] < kept[1], "target must lie in the merged tokens");
  for (int64_t k = 0; k < a.batch * kept[1]; ++k)
    need(a.kept[k] >= 0 && a.kept[k] < a.tokens, "kept must lie in the tokens");
  a.threads = node.threads;
  a.out = node.float_output(0, {a.batch, kept[1], a.channels});
  if (a.batch * kept[1] * a.channels > 0) merge_rows(a);
}

// ---------------------------------------------------------------- shapes

using Shapes = std::vector<Sizes>;

Shapes pruned(const Known& k) {
  const int64_t count = k.attributes.size("count");
  return {{k.axis(0, 0), count, k.axis(0, 2)}, {k.axis(0, 0), count}};
}

Shapes matched(const Known& k) {
  const int64_t tokens = k.axis(0, 1), merged = k.attributes.size("merged");
  return {{k.axis(0, 0), tokens < 0 ? -1 : tokens - merged}, {k.axis(0, 0), tokens}};
}

}  // namespace

FASTPROMPT_NODES(pruning){
    {"CosineScores", "TT", "T", "", cosine, [](const Known& k) { return Shapes{k.axes(0, {0, 1})}; }},
    {"PruneTokens", "Taa", "Ti", "count:i", prune, pruned},
    {"GatherTokens", "Ti", "T", "", gather,
     [](const Known& k) { return Shapes{{k.axis(1, 0), k.axis(1, 1), k.axis(0, 2)}}; }},
    {"ScatterTokens", "TTi", "T", "count:i", scatter,
     [](const Known& k) { return Shapes{{k.axis(1, 0), k.attributes.size("count"), k.axis(1, 2)}}; }},
    {"MatchTokens", "a", "ii", "merged:i spared:i", match, matched},
    {"MergeTokens", "TTii", "T", "", merge,
     [](const Known& k) { return Shapes{{k.axis(2, 0), k.axis(2, 1), k.axis(0, 2)}}; }},
};

}  // namespace fastprompt
