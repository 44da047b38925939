#include "bind.h"

#include <algorithm>
#include <cmath>

#include "guidance/box.h"
#include "guidance/click.h"
#include "guidance/raster.h"
#include "guidance/region.h"

using namespace fastprompt;

namespace {

constexpr double kLargestCoordinate = 1e9;  // of a vertex: steps along an edge are counted in doubles

// The vertices of rings or strokes (points), and where each begins and the last one ends (first); how many there are.
int64_t check_parts(const Fields& f, const double* points, const int64_t* first, int64_t images, int64_t vertices) {
  const int64_t parts = f.size("offsets") - 1;
  f.need(parts >= 0 && first[0] >= 0 && std::is_sorted(first, first + parts + 1) && first[parts] <= vertices, "first",
         "must rise from 0 to the number of points");
  const auto wrong = [](double x) { return !(std::abs(x) <= kLargestCoordinate); };
  f.need(std::none_of(points, points + images * vertices * 2, wrong), "points", "must be finite and at most 1e9");
  return parts;
}

// The clicks of all images; those of one are at(k).
struct ImagesClicks {
  RegionClicks all;

  explicit ImagesClicks(Fields& f) : all{} {
    all.points = f.array("points", "images clicks 2"), all.labels = f.array<int64_t>("labels", "images clicks");
    all.of_labels = f.array<int64_t>("of_labels", "channels");
    f.sizes({{"clicks", &all.clicks}, {"channels", &all.channels}});
  }
  RegionClicks at(int64_t image) const {
    RegionClicks c = all;
    c.points += 2 * image * c.clicks, c.labels += image * c.clicks;
    return c;
  }
};

// Image by image until one has a click outside; returns its number among the clicks of all images, or -1.
template <class Kernel>
int64_t image_by_image(const Fields& f, const Kernel& kernel) {
  f.done();
  const int64_t images = f.size("images"), clicks = f.size("clicks");
  int64_t found = -1;
  without_lock([&] {
    for (int64_t b = 0; b < images && found < 0; ++b)
      if (const int64_t bad = kernel(b); bad >= 0) found = b * clicks + bad;
  });
  return found;
}

}  // namespace

FASTPROMPT_BIND(guidance) {
  m.attr("largest_coordinate") = kLargestCoordinate;
  define(m, "click_maps", [](Fields& f) {
    ClickMaps a{};
    a.points = f.array("points", "images clicks 2"), a.labels = f.array<int64_t>("labels", "images clicks");
    a.of_labels = f.array<int64_t>("of_labels", "channels"), a.scale = f.array("scale", "scales");
    f.sizes({{"images", &a.images}, {"clicks", &a.clicks}, {"channels", &a.channels}, {"scales", &a.scales}});
    a.out = f.result_items("out", "images maps height width", &a.image_stride);
    f.need(f.size("maps") == a.channels * a.scales, "out", "must have a map of every scale for every channel");
    f.sizes({{"height", &a.height}, {"width", &a.width}});
    a.encoding = f.choice<ClickEncoding>("encoding", {"disk", "euclidean", "tanh", "gaussian"});
    a.clip = f.number<float>("clip"), a.divisor = f.number<float>("divisor"), a.missing = f.number<float>("missing");
    f.need(a.missing >= 0, "missing", "must be a squared distance, at least 0");
    a.stretch = f.flag("stretch"), a.threads = f.threads();
    f.run(click_maps, a);
  });
  define(m, "box_maps", [](Fields& f) {
    BoxMaps a{};
    a.corners = f.array("corners", "images boxes 4");
    a.out = f.result_items("out", "images 1 height width", &a.image_stride);
    f.sizes({{"images", &a.images}, {"boxes", &a.boxes}, {"height", &a.height}, {"width", &a.width}});
    a.distance = f.flag("distance"), a.offset = f.number<float>("offset");
    a.low = f.number<float>("low"), a.high = f.number<float>("high"), a.threads = f.threads();
    f.run(box_maps, a);
  });
  define(m, "polygon_masks", [](Fields& f) {
    PolygonMasks a{};
    a.points = f.array<double>("points", "images vertices 2"), a.first = f.array<int64_t>("first", "offsets");
    a.out = f.result<uint8_t>("out", "images height width");
    f.sizes({{"images", &a.images}, {"vertices", &a.vertices}, {"height", &a.height}, {"width", &a.width}});
    a.rings = check_parts(f, a.points, a.first, a.images, a.vertices);
    a.non_zero = f.flag("non_zero"), a.boundary = f.flag("boundary"), a.threads = f.threads();
    f.run(polygon_masks, a);
  });
  define(m, "scribble_map", [](Fields& f) {
    ScribbleMap a{};
    a.points = f.array<double>("points", "vertices 2"), a.first = f.array<int64_t>("first", "offsets");
    a.strokes = check_parts(f, a.points, a.first, 1, f.size("vertices"));
    a.channel = f.array<int64_t>("channel", {a.strokes});
    a.out = f.result("out", "channels height width"), a.radius = f.number<double>("radius");
    f.sizes({{"channels", &a.channels}, {"height", &a.height}, {"width", &a.width}});
    f.need(a.radius >= 0 && a.radius <= kLargestCoordinate, "radius", "must be between 0 and 1e9");
    f.run(scribble_map, a);
  });
  // Both return the first click outside the image, as image * clicks + click, or -1.
  define(m, "superpixel_map", [](Fields& f) {
    SuperpixelMap a{};
    const ImagesClicks clicks(f);
    a.region = f.array<int64_t>("region", "images height width"),
    a.out = f.result("out", "images channels height width");
    f.sizes({{"height", &a.height}, {"width", &a.width}});
    a.clip = f.number<float>("clip");
    const int64_t pixels = a.height * a.width, count = f.size("images") * pixels;
    const auto [least, largest] = std::minmax_element(a.region, a.region + count);
    f.need(count == 0 || (*least >= 0 && *largest < pixels), "region",
           "must be below the number of pixels, and not negative");
    a.regions = count ? *largest + 1 : 0;
    return image_by_image(f, [&](int64_t b) {
      SuperpixelMap image = a;
      image.clicks = clicks.at(b), image.region += b * pixels, image.out += b * clicks.all.channels * pixels;
      return superpixel_map(image);
    });
  });
  define(m, "proposal_votes", [](Fields& f) {
    ProposalVotes a{};
    const ImagesClicks clicks(f);
    a.member = f.array<uint8_t>("member", "images proposals height width");
    a.out = f.result("out", "images channels height width");
    f.sizes({{"proposals", &a.proposals}, {"height", &a.height}, {"width", &a.width}});
    const int64_t pixels = a.height * a.width;
    if (!pixels) a.proposals = 0;  // of any number of which none says anything
    return image_by_image(f, [&](int64_t b) {
      ProposalVotes image = a;
      image.clicks = clicks.at(b), image.member += b * a.proposals * pixels;
      image.out += b * clicks.all.channels * pixels;
      return proposal_votes(image);
    });
  });
  define(m, "prompt_vectors", [](Fields& f) {
    PromptVectors a{};
    a.centre = f.array<double>("centre", "prompts 2"), a.radius = f.array<int64_t>("radius", "prompts 2");
    a.sigma = f.array<double>("sigma", "prompts 2"), a.bit = f.array<int64_t>("bit", "prompts");
    a.peak = f.array("peak", "prompts"), a.out = f.result("out", "prompts length");
    a.height = f.number<int64_t>("height"), a.width = f.number<int64_t>("width");
    f.sizes({{"prompts", &a.prompts}});
    const int64_t both = f.size("length") - 3;
    f.need(a.height >= 0 && a.height <= both && a.width == both - a.height, "out", "must be width + height + 3 long");
    const auto finite = [](double x) { return std::isfinite(x); };
    f.need(std::all_of(a.centre, a.centre + 2 * a.prompts, finite), "centre", "must be finite");
    const auto is_bit = [](int64_t k) { return k >= 0 && k < 3; };
    f.need(std::all_of(a.bit, a.bit + a.prompts, is_bit), "bit", "must be 0, 1 or 2");
    f.run(prompt_vectors, a);
  });
}
