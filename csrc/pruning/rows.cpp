#include "pruning/rows.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/parallel.h"

namespace fastprompt {
namespace {

constexpr int64_t kPart = 128 << 10;  // bytes of the output that are worth handing to another thread

char* row(const Rows& r, int64_t image, int64_t n) { return r.data + image * r.stride[0] + n * r.stride[1]; }

void copy(char* to, const char* from, int64_t bytes) {
  if (bytes == 0) return;  // there may be no memory
  from ? std::memcpy(to, from, bytes) : std::memset(to, 0, bytes);
}

// A row ahead of its turn: the next kept token is not where the hardware looks for it.
void prefetch(const Rows& r, int64_t image, int64_t n, int64_t bytes) {
  if (n < 0 || n >= r.count) return;
  const char* p = row(r, image, n);
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(p + b);
}

// body(image, first, last) over the rows of every image.
template <class Body>
void by_parts(int threads, int64_t batch, int64_t rows, int64_t bytes, const Body& body) {
  const int64_t wanted = threads == 1 ? 1 : std::min<int64_t>(2 * threads, rows * bytes / kPart);
  const int64_t parts = std::max<int64_t>(1, wanted);
  parallel_for(threads, batch * parts, [&](int64_t k) {
    const int64_t part = k % parts;
    body(k / parts, rows * part / parts, rows * (part + 1) / parts);
  });
}

}  // namespace

void gather_rows(const GatherRows& a) {
  by_parts(a.threads, a.batch, a.out.count, a.bytes, [&](int64_t image, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t* index = a.index + image * a.out.count;
      if (i + 2 < last) prefetch(a.from, image, index[i + 2], a.bytes);
      const int64_t n = index[i];
      copy(row(a.out, image, i), n >= 0 && n < a.from.count ? row(a.from, image, n) : nullptr, a.bytes);
    }
  });
}

void scatter_rows(const ScatterRows& a) {
  const bool in_place = a.base.data == a.out.data;
  std::vector<int64_t> source(a.batch * a.out.count, -1);  // of every row of the output: each is written once
  for (int64_t k = 0; k < a.batch * a.from.count; ++k) {
    const int64_t n = a.index[k];
    if (n >= 0 && n < a.out.count) source[k / a.from.count * a.out.count + n] = k % a.from.count;
  }
  by_parts(a.threads, a.batch, a.out.count, a.bytes, [&](int64_t image, int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      const int64_t i = source[image * a.out.count + n];
      if (i >= 0)
        copy(row(a.out, image, n), row(a.from, image, i), a.bytes);
      else if (!in_place)
        copy(row(a.out, image, n), a.base.data ? row(a.base, image, n) : nullptr, a.bytes);
    }
  });
}

}  // namespace fastprompt
