#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bundle.h"

namespace cspedge {

// An artifact that is loaded. One thread at a time.
class Runtime {
 public:
  virtual ~Runtime() = default;
  // float32 [1, 3, H, W], RGB in [0, 1], to the model's outputs in the manifest's order.
  virtual std::vector<std::vector<float>> run(const std::vector<float>& input) = 0;
  virtual std::string version() const = 0;
  // Who computes inside the runtime: ExecuTorch's delegates, OpenVINO's devices.
  virtual std::vector<std::string> delegates() const = 0;
};

// Loads an artifact from bytes whose digests were checked. threads: of the runtime. Failure where this program was
// built without its runtime, or the runtime refuses it.
std::unique_ptr<Runtime> open(const Bundle& bundle, const nlohmann::json& artifact, unsigned threads);

// Whether this program was built with the artifact's runtime.
bool runs(const nlohmann::json& artifact);

std::unique_ptr<Runtime> open_executorch(const Bundle& bundle, const nlohmann::json& artifact, unsigned threads);
std::unique_ptr<Runtime> open_openvino(const Bundle& bundle, const nlohmann::json& artifact, unsigned threads);

}  // namespace cspedge
