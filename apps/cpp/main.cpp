// cspedge-runner BUNDLE                    replays golden/ through every artifact
// cspedge-runner BUNDLE --image photo.ppm  names what it sees
// cspedge-runner BUNDLE --bench            one JSON line of raw times per artifact
//
// --artifact TARGET/PRECISION  that one alone
// --threads N                  of the runtime (1)
// --top N                      classes to name (5)
// --tensors FILE               for --bench: uint8 [n, 3, H, W] instead of golden/'s
// --outputs FILE               for --bench: writes float32 outputs there, image by image
// --warmup N, --rounds N       for --bench: runs before and while time is taken (3, 20; 0 rounds take none)
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>

#include "bundle.h"
#include "failure.h"
#include "image.h"
#include "preprocess.h"
#include "process.h"
#include "runtime.h"

namespace {

using namespace cspedge;
using nlohmann::json;

struct Options {
  std::string bundle;
  std::optional<std::string> image, artifact, tensors, outputs;
  bool bench = false;
  unsigned threads = 1, top = 5, warmup = 3, rounds = 20;
};

unsigned count(const std::string& name, const std::string& text, unsigned least) {
  const bool digits = !text.empty() && text.size() < 7 && text.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || std::stoul(text) < least) {
    throw Failure(Code::usage, name + " is '" + text + "'; it is a number from " + std::to_string(least) + " to 999999");
  }
  return static_cast<unsigned>(std::stoul(text));
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--bench") {
      options.bench = true;
    } else if (name.rfind("--", 0) != 0 && options.bundle.empty()) {
      options.bundle = name;
    } else {
      const std::string value = i + 1 < argc ? argv[++i] : "";
      if (name == "--image") {
        options.image = value;
      } else if (name == "--artifact") {
        options.artifact = value;
      } else if (name == "--tensors") {
        options.tensors = value;
      } else if (name == "--outputs") {
        options.outputs = value;
      } else if (name == "--threads") {
        options.threads = count(name, value, 1);
      } else if (name == "--top") {
        options.top = count(name, value, 1);
      } else if (name == "--warmup") {
        options.warmup = count(name, value, 0);
      } else if (name == "--rounds") {
        options.rounds = count(name, value, 0);
      } else {
        throw Failure(Code::usage, "unknown option '" + name +
                                       "'; known: --image, --bench, --artifact, --threads, --top, --tensors, --outputs, "
                                       "--warmup, --rounds");
      }
    }
  }
  if (options.bundle.empty()) {
    throw Failure(Code::usage, "name the folder of a bundle: cspedge-runner BUNDLE");
  }
  return options;
}

// The artifact that is asked for, or all that this program can run.
std::vector<json> artifacts(const Bundle& bundle, const Options& options) {
  if (options.artifact) {
    return {bundle.artifact(*options.artifact)};
  }
  std::vector<json> found;
  for (const auto& artifact : bundle.manifest().at("artifacts")) {
    if (runs(artifact)) {
      found.push_back(artifact);
    }
  }
  if (found.empty()) {
    throw Failure(Code::missing, "this program was built without the runtime of any artifact in the bundle");
  }
  return found;
}

double milliseconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

// Golden images' tensors, made from their pixels; Failure where one differs from the pipeline's in a single byte.
std::vector<std::vector<std::uint8_t>> golden_tensors(const Bundle& bundle) {
  std::vector<std::vector<std::uint8_t>> tensors;
  for (const auto& image : bundle.manifest().at("golden").at("images")) {
    const Image pixels = from_rgb(bundle.read(image.at("rgb")), image.at("width"), image.at("height"));
    tensors.push_back(tensor(pixels, bundle.manifest().at("preprocess")));
    const std::string path = image.at("tensor");
    const Bytes expected = bundle.read(path);
    if (!std::equal(tensors.back().begin(), tensors.back().end(), expected.data(), expected.data() + expected.size())) {
      throw Failure(Code::wrong, "preprocessing does not reproduce " + path + "; please report it with your compiler");
    }
  }
  return tensors;
}

// The largest distance to the golden answers, in tolerances.
double distance(const Bundle& bundle, const json& artifact, Runtime& runtime,
                const std::vector<std::vector<std::uint8_t>>& tensors) {
  std::vector<std::vector<float>> expected;
  for (const auto& entry : artifact.at("golden")) {
    expected.push_back(bundle.read(entry.at("file")).floats());
  }
  double worst = 0.0;
  for (std::size_t image = 0; image < tensors.size(); ++image) {
    const auto found = runtime.run(input(tensors[image]));
    if (found.size() != expected.size()) {
      throw Failure(Code::wrong, Bundle::label(artifact) + " has " + std::to_string(found.size()) + " outputs, not " +
                                     std::to_string(expected.size()));
    }
    for (std::size_t output = 0; output < found.size(); ++output) {
      const std::size_t size = found[output].size();
      if (size * tensors.size() != expected[output].size()) {
        throw Failure(Code::wrong, Bundle::label(artifact) + " has outputs of another size than golden/");
      }
      const double tolerance = artifact.at("golden").at(output).at("max_abs");
      for (std::size_t i = 0; i < size; ++i) {
        const double off = std::fabs(found[output][i] - expected[output][image * size + i]) / tolerance;
        worst = off <= worst ? worst : off;  // NaN too is the worst
      }
    }
  }
  return worst;
}

void self_test(const Bundle& bundle, const Options& options) {
  const auto tensors = golden_tensors(bundle);
  for (const auto& artifact : artifacts(bundle, options)) {
    const auto runtime = open(bundle, artifact, options.threads);
    const double worst = distance(bundle, artifact, *runtime, tensors);
    const std::string label = Bundle::label(artifact);
    if (!(worst <= 1.0)) {
      throw Failure(Code::wrong, label + " does not reproduce golden/: " + std::to_string(worst) + " times the tolerance");
    }
    std::printf("%s: %zu images, %.3g of the tolerance\n", label.c_str(), tensors.size(), worst);
  }
}

void classify(const Bundle& bundle, const Options& options) {
  const json& output = bundle.manifest().at("outputs").at(0);
  if (output.at("values") != "logits") {
    throw Failure(Code::usage, "the model gives " + output.at("values").get<std::string>() + ", no classes to name");
  }
  const Image image = read_ppm(*options.image);
  const auto runtime = open(bundle, artifacts(bundle, options).front(), options.threads);
  const auto logits = runtime->run(input(tensor(image, bundle.manifest().at("preprocess")))).at(0);
  const auto labels = bundle.labels();
  std::vector<std::size_t> order(logits.size());
  double sum = 0.0;
  const double largest = *std::max_element(logits.begin(), logits.end());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    order[i] = i;
    sum += std::exp(logits[i] - largest);
  }
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
  order.resize(std::min<std::size_t>(options.top, order.size()));
  for (std::size_t i : order) {
    const std::string name = i < labels.size() ? labels[i] : std::to_string(i);
    std::printf("%.4f  %s\n", std::exp(logits[i] - largest) / sum, name.c_str());
  }
}

struct Inputs {
  std::vector<std::vector<float>> images;
  json sha256;  // of the file of tensors; null for golden/'s
};

Inputs bench_inputs(const Bundle& bundle, const Options& options) {
  Inputs inputs;
  if (!options.tensors) {
    for (const auto& image : bundle.manifest().at("golden").at("images")) {
      const Bytes bytes = bundle.read(image.at("tensor"));
      inputs.images.push_back(input({bytes.data(), bytes.data() + bytes.size()}));
    }
    return inputs;
  }
  const Bytes bytes = read_file(*options.tensors);
  std::size_t size = 1;
  for (const auto& side : bundle.manifest().at("input").at("shape")) {
    size *= side.get<std::size_t>();
  }
  if (bytes.size() == 0 || bytes.size() % size != 0) {
    throw Failure(Code::input, *options.tensors + " has " + std::to_string(bytes.size()) + " bytes; an image has " +
                                   std::to_string(size) + " (uint8 [3, H, W] of the manifest)");
  }
  inputs.sha256 = sha256(bytes);
  for (std::size_t at = 0; at < bytes.size(); at += size) {
    inputs.images.push_back(input({bytes.data() + at, bytes.data() + at + size}));
  }
  return inputs;
}

// Writes every image's outputs one after another; the file's digest.
std::string write_outputs(const std::string& path, const std::vector<std::vector<float>>& images, Runtime& runtime) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  for (const auto& image : images) {
    for (const auto& output : runtime.run(image)) {
      file.write(reinterpret_cast<const char*>(output.data()), static_cast<std::streamsize>(output.size() * sizeof(float)));
    }
  }
  if (!file.flush()) {
    throw Failure(Code::input, path + " cannot be written; choose another place, or make room there");
  }
  return sha256(read_file(path));
}

void bench(const Bundle& bundle, const Options& options) {
  const Inputs inputs = bench_inputs(bundle, options);
  const auto& images = inputs.images;
  const auto chosen = artifacts(bundle, options);
  if (options.outputs && chosen.size() != 1) {
    throw Failure(Code::usage, "--outputs is for one artifact; name it with --artifact");
  }
  for (const auto& artifact : chosen) {
    using clock = std::chrono::steady_clock;
    const auto before = clock::now();
    const auto runtime = open(bundle, artifact, options.threads);
    const auto loaded = clock::now();
    runtime->run(images.front());
    const double first = milliseconds(clock::now() - loaded);
    json written;
    if (options.outputs) {
      written = write_outputs(*options.outputs, images, *runtime);
    }
    for (unsigned i = 0; i < options.warmup; ++i) {
      runtime->run(images[i % images.size()]);
    }
    std::vector<double> samples;
    for (unsigned i = 0; i < options.rounds; ++i) {
      const auto start = clock::now();
      runtime->run(images[i % images.size()]);
      samples.push_back(milliseconds(clock::now() - start));
    }
    const json line{{"artifact", Bundle::label(artifact)},
                    {"sha256", artifact.at("sha256")},
                    {"runtime", {{"name", artifact.at("runtime").at("name")}, {"version", runtime->version()}}},
                    {"delegates", runtime->delegates()},
                    {"threads", options.threads},
                    {"images", images.size()},
                    {"tensors_sha256", inputs.sha256},
                    {"outputs_sha256", written},
                    {"load_ms", milliseconds(loaded - before)},
                    {"first_ms", first},
                    {"samples_ms", samples},
                    {"peak_rss_bytes", peak_rss_bytes()}};
    std::cout << line.dump() << std::endl;
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = parse(argc, argv);
    const Bundle bundle(options.bundle);
    if (options.bench) {
      bench(bundle, options);
    } else if (options.image) {
      classify(bundle, options);
    } else {
      self_test(bundle, options);
    }
    return 0;
  } catch (const Failure& failure) {
    std::cerr << "error: " << failure.what() << "\n";
    return failure.code();
  } catch (const nlohmann::json::exception& error) {
    std::cerr << "error: the manifest is damaged (" << error.what() << "); take the bundle again\n";
    return static_cast<int>(Code::input);
  }
}
