#include "pooling/film.h"

#include <algorithm>

#include "common/parallel.h"

namespace fastprompt {

void film(const Film& a) {
  const int64_t rows = a.batch * (a.last ? a.inner : a.channels), size = a.last ? a.channels : a.inner;
  const int64_t some = std::max<int64_t>(1, 32768 / size);  // rows of a part: 128 KiB
  parallel_for(a.threads, (rows + some - 1) / some, [&](int64_t k) {
    FP_DISPATCH(film_rows)(a, k * some, std::min((k + 1) * some, rows));
  });
}

}  // namespace fastprompt
