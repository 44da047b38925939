#include "bind.h"

#include "guidance/box.h"
#include "guidance/click.h"
#include "guidance/raster.h"
#include "guidance/region.h"

using namespace fastprompt;

namespace {

template <class T>
T* pointer(const py::handle& address) {
  return reinterpret_cast<T*>(address.cast<std::uintptr_t>());
}

void read(const py::tuple& numbers, std::initializer_list<int64_t*> fields) {
  std::size_t k = 0;
  for (int64_t* field : fields) *field = numbers[k++].cast<int64_t>();
}

// clicks, channels; points, labels, of_labels
RegionClicks region_clicks(const py::tuple& sizes, const py::tuple& arrays) {
  RegionClicks c{};
  read(sizes, {&c.clicks, &c.channels});
  c.points = pointer<float>(arrays[0]), c.labels = pointer<int64_t>(arrays[1]);
  c.of_labels = pointer<int64_t>(arrays[2]);
  return c;
}

}  // namespace

FASTPROMPT_BIND(guidance) {
  // sizes: images, clicks, channels, scales, height, width, image_stride; arrays: points, labels, of_labels, scale, out
  m.def("click_maps", [](const py::tuple& sizes, const py::tuple& arrays, int encoding, float clip, float divisor,
                         float missing, bool stretch, int threads) {
    ClickMaps a{};
    read(sizes, {&a.images, &a.clicks, &a.channels, &a.scales, &a.height, &a.width, &a.image_stride});
    a.points = pointer<float>(arrays[0]), a.labels = pointer<int64_t>(arrays[1]);
    a.of_labels = pointer<int64_t>(arrays[2]), a.scale = pointer<float>(arrays[3]), a.out = pointer<float>(arrays[4]);
    a.encoding = static_cast<ClickEncoding>(encoding), a.clip = clip, a.divisor = divisor, a.missing = missing;
    a.stretch = stretch, a.threads = threads;
    py::gil_scoped_release nogil;
    click_maps(a);
  });
  // sizes: images, boxes, height, width, image_stride; numbers: offset, low, high
  m.def("box_maps",
        [](const py::tuple& sizes, const py::tuple& arrays, bool distance, const py::tuple& numbers, int threads) {
          BoxMaps a{};
          read(sizes, {&a.images, &a.boxes, &a.height, &a.width, &a.image_stride});
          a.corners = pointer<float>(arrays[0]), a.out = pointer<float>(arrays[1]), a.distance = distance;
          a.offset = numbers[0].cast<float>(), a.low = numbers[1].cast<float>(), a.high = numbers[2].cast<float>();
          a.threads = threads;
          py::gil_scoped_release nogil;
          box_maps(a);
        });
  // sizes: images, vertices, rings, height, width; arrays: points, first, out
  m.def("polygon_masks",
        [](const py::tuple& sizes, const py::tuple& arrays, bool non_zero, bool boundary, int threads) {
          PolygonMasks a{};
          read(sizes, {&a.images, &a.vertices, &a.rings, &a.height, &a.width});
          a.points = pointer<double>(arrays[0]), a.first = pointer<int64_t>(arrays[1]);
          a.out = pointer<uint8_t>(arrays[2]), a.non_zero = non_zero, a.boundary = boundary, a.threads = threads;
          py::gil_scoped_release nogil;
          polygon_masks(a);
        });
  // sizes: strokes, channels, height, width; arrays: points, first, channel, out
  m.def("scribble_map", [](const py::tuple& sizes, const py::tuple& arrays, double radius) {
    ScribbleMap a{};
    read(sizes, {&a.strokes, &a.channels, &a.height, &a.width});
    a.points = pointer<double>(arrays[0]), a.first = pointer<int64_t>(arrays[1]);
    a.channel = pointer<int64_t>(arrays[2]), a.out = pointer<float>(arrays[3]), a.radius = radius;
    py::gil_scoped_release nogil;
    scribble_map(a);
  });
  // clicks: see region_clicks; sizes: regions, height, width; arrays: region, out
  m.def("superpixel_map", [](const py::tuple& count, const py::tuple& clicks, const py::tuple& sizes,
                             const py::tuple& arrays, float clip) {
    SuperpixelMap a{};
    a.clicks = region_clicks(count, clicks), a.clip = clip;
    read(sizes, {&a.regions, &a.height, &a.width});
    a.region = pointer<int64_t>(arrays[0]), a.out = pointer<float>(arrays[1]);
    py::gil_scoped_release nogil;
    return superpixel_map(a);
  });
  // sizes: proposals, height, width; arrays: member, out
  m.def("proposal_votes",
        [](const py::tuple& count, const py::tuple& clicks, const py::tuple& sizes, const py::tuple& arrays) {
          ProposalVotes a{};
          a.clicks = region_clicks(count, clicks);
          read(sizes, {&a.proposals, &a.height, &a.width});
          a.member = pointer<uint8_t>(arrays[0]), a.out = pointer<float>(arrays[1]);
          py::gil_scoped_release nogil;
          return proposal_votes(a);
        });
  // sizes: prompts, height, width; arrays: centre, radius, sigma, bit, peak, out
  m.def("prompt_vectors", [](const py::tuple& sizes, const py::tuple& arrays) {
    PromptVectors a{};
    read(sizes, {&a.prompts, &a.height, &a.width});
    a.centre = pointer<double>(arrays[0]), a.radius = pointer<int64_t>(arrays[1]);
    a.sigma = pointer<double>(arrays[2]), a.bit = pointer<int64_t>(arrays[3]);
    a.peak = pointer<float>(arrays[4]), a.out = pointer<float>(arrays[5]);
    py::gil_scoped_release nogil;
    prompt_vectors(a);
  });
}
