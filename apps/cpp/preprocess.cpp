// The section "Preprocessing: from RGB to tensor" of docs/bundle.md. The arithmetic is that of Pillow's Image.resize for
// 8-bit RGB (libImaging/Resample.c): weights in double precision, rounded to 22 bits, sums in integers.
#include "preprocess.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "failure.h"

namespace cspedge {

namespace {

constexpr int kBits = 22;  // of a resize weight
constexpr double kPi = 3.14159265358979323846;

struct Filter {
  double support;
  std::function<double(double)> weight;
};

double sinc(double x) { return x == 0.0 ? 1.0 : std::sin(x * kPi) / (x * kPi); }

double hamming(double x) {
  x = std::fabs(x);
  if (x >= 1.0) {
    return 0.0;
  }
  const double a = 0.54F, b = 0.46F;  // Pillow's constants are floats
  return x == 0.0 ? 1.0 : sinc(x) * (a + b * std::cos(x * kPi));
}

double bicubic(double x) {
  const double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) {
    return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  }
  return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

Filter filter(const std::string& name) {
  if (name == "box") {
    return {0.5, [](double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }};
  }
  if (name == "bilinear") {
    return {1.0, [](double x) { return std::max(0.0, 1.0 - std::fabs(x)); }};
  }
  if (name == "hamming") {
    return {1.0, hamming};
  }
  if (name == "bicubic") {
    return {2.0, bicubic};
  }
  if (name == "lanczos") {
    return {3.0, [](double x) { return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0; }};
  }
  throw Failure(Code::input, "the bundle's interpolation is '" + name + "', which this program does not know");
}

// For one output sample: the first source sample and the integer weights from there on.
struct Window {
  int first;
  std::vector<std::int32_t> weights;
};

Window window(int index, int from, int to, const Filter& filter) {
  const double scale = static_cast<double>(from) / to;
  const double stretch = std::max(scale, 1.0), inverse = 1.0 / stretch;
  const double support = filter.support * stretch, center = (index + 0.5) * scale;
  const int low = std::max(0, static_cast<int>(center - support + 0.5));
  const int high = std::min(from, static_cast<int>(center + support + 0.5));
  std::vector<double> weights;
  double total = 0.0;
  for (int i = low; i < high; ++i) {
    weights.push_back(filter.weight((i - center + 0.5) * inverse));
    total += weights.back();
  }
  Window result{low, {}};
  for (double weight : weights) {
    const double scaled = (total != 0.0 ? weight / total : weight) * (1 << kBits);
    result.weights.push_back(static_cast<std::int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
  }
  return result;
}

// Source samples of the filter `nearest`; the position is a running sum, as in Pillow: a product would round otherwise.
std::vector<int> nearest(int from, int to) {
  const double scale = static_cast<double>(from) / to;
  double position = scale * 0.5;
  std::vector<int> samples;
  for (int i = 0; i < to; ++i, position += scale) {
    samples.push_back(std::min(static_cast<int>(position), from - 1));
  }
  return samples;
}

// One pass, along the width or the height. Neighbours along it lie `step` bytes apart.
Image pass(const Image& image, int to, bool along_width, const std::string& interpolation) {
  const int from = along_width ? image.width : image.height;
  if (from == to) {
    return image;
  }
  Image out{along_width ? to : image.width, along_width ? image.height : to, {}};
  out.pixels.resize(3 * static_cast<std::size_t>(out.width) * out.height);
  const std::size_t step = along_width ? 3 : 3 * static_cast<std::size_t>(image.width);
  std::vector<Window> windows;
  if (interpolation == "nearest") {
    for (int sample : nearest(from, to)) {
      windows.push_back({sample, {1 << kBits}});
    }
  } else {
    const Filter kernel = filter(interpolation);
    for (int i = 0; i < to; ++i) {
      windows.push_back(window(i, from, to, kernel));
    }
  }
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      const Window& w = windows[along_width ? x : y];
      const std::size_t row = along_width ? y : w.first, column = along_width ? w.first : x;
      for (int channel = 0; channel < 3; ++channel) {
        const std::uint8_t* source = &image.pixels[3 * (row * image.width + column) + channel];
        std::int32_t sum = 1 << (kBits - 1);
        for (std::int32_t weight : w.weights) {
          sum += weight * *source;
          source += step;
        }
        out.pixels[3 * (static_cast<std::size_t>(y) * out.width + x) + channel] =
            static_cast<std::uint8_t>(std::clamp(sum >> kBits, 0, 255));
      }
    }
  }
  return out;
}

struct Size {
  long height;
  long width;
};

void check(Size size, const nlohmann::json& contract, const std::string& what) {
  const long limit = contract.at("max_pixels");
  const std::string says = what + " is " + std::to_string(size.width) + " x " + std::to_string(size.height) + " pixels";
  if (size.height < 1 || size.width < 1) {
    throw Failure(Code::input, says + "; both sides must be 1 or more");
  }
  if (size.height > limit / size.width) {
    throw Failure(Code::input, says + ", above the limit of " + std::to_string(limit) + "; give a smaller one");
  }
}

Size resized(const Image& image, const nlohmann::json& rule) {
  const long h = image.height, w = image.width, to_h = rule.at("height"), to_w = rule.at("width");
  const std::string name = rule.at("rule");
  if (name == "exact") {
    return {to_h, to_w};
  }
  if (name == "shorter-edge") {
    return w <= h ? Size{to_h * h / w, to_h} : Size{to_h, to_h * w / h};
  }
  if (name != "cover" && name != "fit") {
    throw Failure(Code::input, "the bundle's resize rule is '" + name + "', which this program does not know");
  }
  const double tall = static_cast<double>(h) / to_h, wide = static_cast<double>(w) / to_w;
  const double ratio = name == "cover" ? std::min(tall, wide) : std::max(tall, wide);
  return {std::lrint(h / ratio), std::lrint(w / ratio)};  // halves to even, as Python's round
}

// Where the crop begins in an image that is at least as large; halves to even, as Python's round.
int start(int size, int crop) { return static_cast<int>(std::lrint((size - crop) / 2.0)); }

}  // namespace

std::vector<std::uint8_t> tensor(const Image& image, const nlohmann::json& contract) {
  check({image.height, image.width}, contract, "the image");
  const auto& rule = contract.at("resize");
  const Size to = resized(image, rule);
  check(to, contract,
        "the image of " + std::to_string(image.width) + " x " + std::to_string(image.height) + " pixels, resized,");
  const std::string interpolation = rule.at("interpolation");
  const long lost = image.height - to.height;
  const bool tall = lost > 0 && lost > 2 * (image.width - to.width);  // from Pillow 13 on
  const bool width_first = rule.at("first_pass") == "width" || !tall;
  const int w = static_cast<int>(to.width), h = static_cast<int>(to.height);
  const Image scaled = width_first ? pass(pass(image, w, true, interpolation), h, false, interpolation)
                                   : pass(pass(image, h, false, interpolation), w, true, interpolation);

  const int height = contract.at("crop").at("height"), width = contract.at("crop").at("width");
  const int above = std::max(0, height - scaled.height) / 2, before = std::max(0, width - scaled.width) / 2;
  const int top = start(std::max(height, scaled.height), height) - above;
  const int left = start(std::max(width, scaled.width), width) - before;
  std::vector<std::uint8_t> out;
  out.reserve(3 * static_cast<std::size_t>(height) * width);
  for (int channel = 0; channel < 3; ++channel) {
    const std::uint8_t pad = contract.at("pad").at(channel);
    for (int y = top; y < top + height; ++y) {
      for (int x = left; x < left + width; ++x) {
        const bool inside = y >= 0 && y < scaled.height && x >= 0 && x < scaled.width;
        out.push_back(inside ? scaled.pixels[3 * (static_cast<std::size_t>(y) * scaled.width + x) + channel] : pad);
      }
    }
  }
  return out;
}

std::vector<float> input(const std::vector<std::uint8_t>& tensor) {
  std::vector<float> values;
  values.reserve(tensor.size());
  for (std::uint8_t value : tensor) {
    values.push_back(static_cast<float>(value) / 255.0F);
  }
  return values;
}

}  // namespace cspedge
