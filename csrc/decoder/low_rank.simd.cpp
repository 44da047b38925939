#include "decoder/low_rank.h"

#include "decoder/low_rank_prompt.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

constexpr int64_t kParts = 16;  // of the image, for each thread: 0.15 ms for SAM, see Member::stage

// Some prompts on one image: a tile of it comes from memory once for all of them.
class LowRankGroup {
 public:
  LowRankGroup(const LowRank& args, int64_t first, int64_t count, int threads)
      : a_(args.two_way),
        l_(args.layout),
        count_(count),
        tiles_((a_.pixels + kTile - 1) / kTile),
        parts_(parts_of(tiles_, threads, kParts)),
        image_(first / (a_.prompts / a_.images)),
        tokens_(a_, first, count) {
    for (int64_t k = 0; k < count; ++k) prompts_[k] = new LowRankPrompt(args, tokens_, first, k, parts_);
  }
  ~LowRankGroup() {
    for (int64_t k = 0; k < count_; ++k) delete prompts_[k];
  }
  LowRankGroup(const LowRankGroup&) = delete;
  LowRankGroup& operator=(const LowRankGroup&) = delete;

  static void program(Member& m, void* self) { static_cast<LowRankGroup*>(self)->run(m); }

 private:
  // Every thread of the team runs this; the stages keep them together.
  void run(Member& m) {
    tokens_.read(m);
    for (int64_t n = 0; n <= a_.depth; ++n) {
      if (n > 0) {
        take_answer(m, n - 1, a_.layers[n - 1].to_image, a_.layers[n - 1].norm2);
        tokens_.digest(m, a_.layers[n - 1]);
        for (int64_t k = 0; k < count_; ++k) prompts_[k]->answer(m, n);
      }
      if (n < a_.depth) tokens_.attend_to_itself(m, a_.layers[n], n == 0);
      tokens_.ask(m, prompts_[0]->question(n));
      for (int64_t k = 0; n > 0 && k < count_; ++k) prompts_[k]->ask(m, n);
      each(m, parts_, [&](int64_t part) { pass(n, part); }, true);
    }
    take_answer(m, a_.depth, a_.final, a_.final_norm);
    tokens_.write(m);
  }

  void take_answer(Member& m, int64_t n, const AttentionWeights& w, const LayerNorm& norm) {
    each(m, count_ * a_.heads, [&](int64_t k) { prompts_[k / a_.heads]->merge_head(k % a_.heads, n, w); });
    tokens_.take_answer(m, w, norm);
  }

  void pass(int64_t n, int64_t part) {
    const int64_t wide = l_.half ? l_.rows(n) * kTile : 0;
    Scratch memory(prompts_[0]->room_floats() + wide);
    float *expanded = memory.data(), *room = expanded + wide;
    prompts_[0]->clear(room, n);
    const int64_t first = tiles_ * part / parts_, last = tiles_ * (part + 1) / parts_;
    for (int64_t k = first; k < last; ++k) {
      const int64_t calls = count_ * prompts_[0]->fetches(n), size = k + 1 < tiles_ ? l_.rows(n) * kTile : 0;
      const int64_t here = place(k) + l_.start(n) * kTile, next = place(k + 1) + l_.start(n) * kTile;
      const auto* floats = static_cast<const float*>(a_.prepared);
      const auto* halves = static_cast<const uint16_t*>(a_.prepared);
      if (l_.half) expand(halves + here, expanded, wide);
      Ahead ahead = l_.half ? Ahead(halves + next, size * 2, calls) : Ahead(floats + next, size * 4, calls);
      for (int64_t p = 0; p < count_; ++p)
        prompts_[p]->pass_tile(n, k, l_.half ? expanded : floats + here, k == first, room, part, ahead);
    }
  }

  // Of tile k among those that are prepared.
  int64_t place(int64_t k) const { return (image_ * tiles_ + k) * l_.prepared_rows() * kTile; }

  const TwoWay& a_;
  const LowRankLayout& l_;
  const int64_t count_, tiles_, parts_, image_;
  PromptTokens tokens_;
  LowRankPrompt* prompts_[kLowRankGroup];
};

}  // namespace

void low_rank_group(const LowRank& a, int64_t first, int64_t count, int threads) {
  threads = threads < kMaxParts / kParts ? threads : static_cast<int>(kMaxParts / kParts);
  LowRankGroup group(a, first, count, threads);  // the parts, and so the bits, do not depend on who is busy
  run_team(team_size(threads), LowRankGroup::program, &group);
}

}  // namespace FP_ISA
}  // namespace fastprompt
