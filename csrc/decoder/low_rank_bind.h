#pragma once
#include "decoder/low_rank.h"
#include "bind.h"

namespace fastprompt {

// (tokens, heads, width, depth, up, half)
inline LowRankLayout low_rank_layout(const py::tuple& t) {
  return {t[0].cast<int64_t>(), t[1].cast<int64_t>(), t[2].cast<int64_t>(),
          t[3].cast<int64_t>(), t[4].cast<int64_t>(), t[5].cast<bool>()};
}

}  // namespace fastprompt
