// Polygons and strokes as pixels. A pixel is its centre, which lies at whole coordinates.
#pragma once
#include <cstdint>

namespace fastprompt {

struct PolygonMasks {
  int64_t images, vertices, rings, height, width;
  const double* points;  // (images, vertices, 2): x, y, finite
  const int64_t* first;  // (rings + 1): the vertices of ring r are [first[r], first[r + 1]); the same in all images
  bool non_zero;         // rule: winding number not 0, else odd
  bool boundary;         // points are rounded, and the outline belongs to the polygon, as cv2.fillPoly draws it
  uint8_t* out;          // (images, height, width): 0 or 1
  int threads;
};

void polygon_masks(const PolygonMasks& args);

struct ScribbleMap {
  int64_t strokes, channels, height, width;
  const double* points;    // (first[strokes], 2): x, y, finite
  const int64_t* first;    // (strokes + 1): the points of stroke s are [first[s], first[s + 1])
  const int64_t* channel;  // (strokes): where it is drawn; none if out of range
  double radius;           // of the pen: pixels within it belong to the stroke
  float* out;  // (channels, height, width): 1 on a stroke; a later stroke takes its pixels from other channels
};

void scribble_map(const ScribbleMap& args);

}  // namespace fastprompt
