#include <openvino/openvino.hpp>

#include "failure.h"
#include "runtime.h"

namespace cspedge {

namespace {

class OpenVino : public Runtime {
 public:
  OpenVino(const std::string& graph, Bytes weights, const nlohmann::json& shape, unsigned threads)
      : weights_(std::move(weights)), shape_(shape.begin(), shape.end()) {
    const ov::Tensor constants(ov::element::u8, {weights_.size()}, weights_.data());
    const auto model = core_.read_model(graph, constants);
    // f32: else some processors compute in bfloat16 what is not int8, and answer otherwise
    auto compiled = core_.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32),
                                              ov::inference_num_threads(static_cast<int>(threads)));
    request_ = compiled.create_infer_request();
  }

  std::vector<std::vector<float>> run(const std::vector<float>& input) override {
    // the request only reads its input
    request_.set_input_tensor(ov::Tensor(ov::element::f32, shape_, const_cast<float*>(input.data())));
    request_.infer();
    std::vector<std::vector<float>> outputs;
    for (std::size_t i = 0; i < request_.get_compiled_model().outputs().size(); ++i) {
      const ov::Tensor output = request_.get_output_tensor(i);
      const float* data = output.data<float>();
      outputs.emplace_back(data, data + output.get_size());
    }
    return outputs;
  }

  std::string version() const override { return ov::get_openvino_version().buildNumber; }

  std::vector<std::string> delegates() const override {
    return request_.get_compiled_model().get_property(ov::execution_devices);
  }

 private:
  Bytes weights_;  // the model refers to it
  ov::Shape shape_;
  ov::Core core_;
  mutable ov::InferRequest request_;  // it tells of its model through a call that is not const
};

}  // namespace

std::unique_ptr<Runtime> open_openvino(const Bundle& bundle, const nlohmann::json& artifact, unsigned threads) {
  const std::string path = artifact.at("path");
  const Bytes graph = bundle.read(path + "/model.xml");
  const std::string text(graph.data(), graph.data() + graph.size());
  try {
    return std::make_unique<OpenVino>(text, bundle.read(path + "/model.bin"), bundle.manifest().at("input").at("shape"),
                                      threads);
  } catch (const ov::Exception& error) {
    throw Failure(Code::wrong, path + " cannot be loaded by OpenVINO " + ov::get_openvino_version().buildNumber + ": " +
                                   error.what());
  }
}

}  // namespace cspedge
