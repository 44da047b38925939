// Rows moved as they are, whatever their dtype: the tokens that stay, and their way back.
#pragma once
#include <cstdint>

namespace fastprompt {

// (batch, count) rows; `stride` is that of an image and that of a row, in bytes.
struct Rows {
  char* data;
  int64_t count, stride[2];
};

// out[b][i] = from[b][index[b][i]]; a zero row where the index is none of a row.
struct GatherRows {
  int64_t batch, bytes;  // of a row
  Rows from;
  const int64_t* index;  // (batch, out.count)
  Rows out;
  int threads;
};

// out[b][index[b][i]] = from[b][i]; what no index names is base[b][n], zero without a base, and stays as it is where
// base is out. An index of no row is passed over; of equal ones the last counts.
struct ScatterRows {
  int64_t batch, bytes;
  Rows base, from;
  const int64_t* index;  // (batch, from.count)
  Rows out;
  int threads;
};

void gather_rows(const GatherRows& args);
void scatter_rows(const ScatterRows& args);

}  // namespace fastprompt
