#include "clicks/next.h"

#include "common/interrupt.h"
#include "common/scratch.h"
#include "common/simd.h"

namespace fastprompt {
namespace FP_ISA {

static inline int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

// Rows of 16-bit numbers are walked in whole vectors: their room is a multiple of kRoom, with zeros at the end.
typedef int16_t vs __attribute__((vector_size(sizeof(vf)), aligned(2), may_alias));
constexpr int64_t kRoom = 64, kShorts = sizeof(vs) / sizeof(int16_t);
static_assert(kRoom % kShorts == 0, "a row must be whole vectors");

static inline vs& at(int16_t* p) { return *reinterpret_cast<vs*>(p); }
static inline vs larger(vs x, vs y) { return x > y ? x : y; }
static inline vs smaller(vs x, vs y) { return x < y ? x : y; }

// A run of errors goes on, or begins: the rows from here to its end, > 0 for missed pixels and < 0 for false ones.
static inline vs longer(vs kind, vs run) {
  const vs zero{}, missed = larger(run, zero) + 1, wrong = smaller(run, zero) - 1;
  return (missed & (kind > 0)) | (wrong & (kind < 0));
}

// What is known of the errors of an image.
struct Errors {
  int64_t width, row;   // pixels, and their room
  int64_t first, last;  // rows with errors; first > last: none
  int16_t* rows;        // (height, row): rows to the nearest pixel without an error of this kind, signed as in longer()
  int16_t *most, *least;  // (height) of them
};

// The largest square of a distance so far; the next must reach `bar`.
struct Best {
  float square, bar;
  int64_t x, y;

  void must_beat(int64_t row) { bar = row < y ? square : square + 1.f; }
};

static inline void mark_errors(const uint8_t* p, const uint8_t* t, int ignore, int16_t* kind, int64_t n) {
  if (ignore < 0) {
    for (int64_t x = 0; x < n; ++x) kind[x] = (t[x] != 0) - (p[x] != 0);
    return;
  }
  const auto skipped = static_cast<uint8_t>(ignore);
  for (int64_t x = 0; x < n; ++x) kind[x] = t[x] == skipped ? 0 : (t[x] != 0) - (p[x] != 0);
}

// `kind` becomes the runs of its row; whether there is an error.
static inline bool extend(int16_t* kind, int16_t* before, int64_t n) {
  vs any{};
  for (int64_t x = 0; x < n; x += kShorts) any |= at(kind + x) = longer(at(kind + x), at(before + x));
  int16_t found = 0;
  for (int k = 0; k < kShorts; ++k) found |= any[k];
  return found;
}

// Down the image: rows since the run of errors began.
static void scan_down(const NextClick& a, int64_t image, Errors* e) {
  Scratch memory(a.width / 4 + 1);
  auto* room = reinterpret_cast<uint8_t*>(memory.data());
  e->first = a.height, e->last = -1;
  for (int64_t y = 0; y < a.height; ++y) {
    if (y % 64 == 0) checkpoint();
    const int64_t from = (image * a.height + y) * a.width;
    int16_t* run = e->rows + y * e->row;
    mark_errors(mask_pixels(a.pred, from, a.width, room), a.target + from, a.ignore, run, a.width);
    for (int64_t x = a.width; x < e->row; ++x) run[x] = 0;
    if (!extend(run, run - e->row, e->row)) continue;  // row -1 is zero
    if (e->last < 0) e->first = y;
    e->last = y;
  }
}

// Up again: the nearer end of each run.
static void scan_up(Errors* e, int16_t* below) {
  for (int64_t x = 0; x < e->row; ++x) below[x] = 0;
  for (int64_t y = e->last; y >= e->first; --y) {
    if (y % 64 == 0) checkpoint();
    int16_t* run = e->rows + y * e->row;
    vs most{}, least{};
    for (int64_t x = 0; x < e->row; x += kShorts) {
      const vs up = at(run + x), down = longer(up, at(below + x));
      const vs nearer = up > 0 ? smaller(up, down) : larger(up, down);
      at(below + x) = down, at(run + x) = nearer;
      most = larger(most, nearer), least = smaller(least, nearer);
    }
    e->most[y] = e->least[y] = 0;
    for (int k = 0; k < kShorts; ++k) {
      if (most[k] > e->most[y]) e->most[y] = most[k];
      if (least[k] < e->least[y]) e->least[y] = least[k];
    }
  }
}

static inline bool any_reaches(vf x, float bar) { return ~less_mask(x, broadcast(bar)) & ((1ull << N) - 1); }

// Squares of the distances of N pixels, exact for those that reach `bar`, by candidates farther and farther away in
// their row. First two probes at the distance that must be beaten: they dismiss nearly all pixels.
static inline bool distances(const float* s, float bar, int64_t probe, float* out) {
  vf d = loadu(s);
  if (!any_reaches(d, bar)) return false;
  const int64_t probes[] = {probe, probe / 2};
  for (const int64_t k : probes) {
    const vf square = broadcast(static_cast<float>(k) * static_cast<float>(k));
    d = min(loadu(s - k) + square, min(loadu(s + k) + square, d));
    if (!any_reaches(d, bar)) return false;
  }
  float k = 1.f;
  for (int64_t step = 1;; ++step, k += 1.f) {
    const vf square = broadcast(k * k);
    d = min(loadu(s - step) + square, min(loadu(s + step) + square, d));
    const uint64_t dead = less_mask(d, broadcast(bar)), nearer = ~less_mask(square, d);
    if (((dead | nearer) & ((1ull << N) - 1)) == (1ull << N) - 1) break;
  }
  storeu(out, d);
  return any_reaches(d, bar);
}

// The largest k whose square is below bar.
static inline int64_t probe_of(float bar) {
  auto k = static_cast<int64_t>(__builtin_sqrtf(bar));
  while (k > 0 && static_cast<float>(k) * static_cast<float>(k) >= bar) --k;
  return k;
}

struct Search {
  const NextClick& a;
  const Errors& e;
  int64_t image;
  float* squares;  // of a row's `rows`, 0 where there is no error of the kind, and far enough on both sides

  bool taken(int64_t x, int64_t y) const {
    const int32_t* c = a.clicked + image * a.clicks * 2;
    for (int64_t k = 0; k < a.clicks; ++k)
      if (c[2 * k] == x && c[2 * k + 1] == y) return true;
    return false;
  }

  void row(int64_t y, bool missed, Best* best) const {
    const int16_t* rows = e.rows + y * e.row;
    for (int64_t x = 0; x < e.width; ++x) {
      const int32_t r = missed == (rows[x] > 0) ? rows[x] : 0;
      squares[x] = static_cast<float>(r * r);
    }
    float lane[N];
    int64_t probe = probe_of(best->bar);
    for (int64_t x = 0; x < e.width; x += N) {
      if (!distances(squares + x, best->bar, probe, lane)) continue;
      for (int64_t k = 0; k < N && x + k < e.width; ++k) {
        if (!(lane[k] >= best->bar) || taken(x + k, y)) continue;
        *best = {lane[k], lane[k] + 1.f, x + k, y};
        probe = probe_of(best->bar);
      }
    }
  }

  // Neighbouring rows differ by one pixel at most: every 16th row first, so that most others need no look.
  void rows(bool missed, Best* best) const {
    static const int64_t starts[] = {8, 0, 4, 12, 2, 6, 10, 14, 1, 3, 5, 7, 9, 11, 13, 15};
    for (const int64_t start : starts)
      for (int64_t y = e.first + start; y <= e.last; y += 16) {
        const float bound = missed ? e.most[y] : -e.least[y];
        best->must_beat(y);
        if (bound * bound < best->bar) continue;
        checkpoint();
        row(y, missed, best);
      }
  }
};

static inline void clear(float* p, int64_t n) {
  for (int64_t k = 0; k < n; ++k) p[k] = 0.f;
}

void click_of_image(const NextClick& a, int64_t image) {
  const int64_t room = round_up(a.width, kRoom), margin = room + 64;
  Scratch memory((a.height + 2) * room / 2 + a.height + 1 + room + 2 * margin);
  Errors e{};
  e.width = a.width, e.row = room;
  auto* below = reinterpret_cast<int16_t*>(memory.data());
  clear(memory.data(), room);  // `below`, and row -1
  e.rows = below + 2 * room;
  e.most = e.rows + a.height * room, e.least = e.most + a.height;
  float* padded = memory.data() + (a.height + 2) * room / 2 + a.height + 1;
  clear(padded, room + 2 * margin);
  scan_down(a, image, &e);
  scan_up(&e, below);

  const Search search{a, e, image, padded + margin};
  Best wrong{0.f, 1.f, 0, -1};
  search.rows(false, &wrong);
  Best missed{wrong.square, 1.f, 0, -1};  // row -1: a tie is not enough
  search.rows(true, &missed);
  const bool positive = missed.square > wrong.square;
  const Best& best = positive ? missed : wrong;
  int64_t* out = a.out + 4 * image;
  out[0] = best.x, out[1] = best.y < 0 ? 0 : best.y, out[2] = positive, out[3] = static_cast<int64_t>(best.square);
}

}  // namespace FP_ISA
}  // namespace fastprompt
