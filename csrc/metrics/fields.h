// The masks of metrics and clicks on their way from Python.
#pragma once
#include "bind.h"
#include "metrics/mask_row.h"

namespace fastprompt {

// `pred`: bytes, or floats that `threshold` is for.
inline Masks mask_fields(Fields& f, const char* shape) {
  const bool floats = f.strided("pred", shape).kind == Kind::f32;
  Masks masks{nullptr, floats ? DType::f32 : DType::u8, f.number<float>("threshold")};
  masks.data = floats ? static_cast<const void*>(f.array("pred", shape)) : f.array<uint8_t>("pred", shape);
  return masks;
}

// The target of a pixel that does not count.
inline int ignored_field(Fields& f) {
  const int ignore = f.number<int>("ignore");
  f.need(ignore < 256, "ignore", "must be a byte, or negative for none");
  return ignore;
}

}  // namespace fastprompt
