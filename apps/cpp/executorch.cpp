#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/platform/platform.h>

#include <cstdio>

#include "failure.h"
#include "runtime.h"

// The library has them and the package does not ship their header (extension/threadpool/threadpool.h of executorch).
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(std::uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace cspedge {

namespace {

namespace et = executorch;

// Errors alone: it would tell of every file in /sys that it cannot read.
void log(et_timestamp_t, et_pal_log_level_t level, const char* file, const char*, std::size_t line, const char* message,
         std::size_t) {
  if (level == kError || level == kFatal) {
    std::fprintf(stderr, "executorch %s:%zu: %s\n", file, line, message);
  }
}

class ExecuTorch : public Runtime {
 public:
  ExecuTorch(Bytes program, const nlohmann::json& shape, std::string what)
      : program_(std::move(program)),
        shape_(shape.begin(), shape.end()),
        what_(std::move(what)),
        module_(std::make_unique<et::extension::BufferDataLoader>(program_.data(), program_.size())) {
    const auto error = module_.load_forward();
    if (error != et::runtime::Error::Ok) {
      throw failure("cannot be loaded", error);
    }
    const auto meta = module_.method_meta("forward");
    if (!meta.ok()) {
      throw failure("cannot be described", meta.error());
    }
    for (std::size_t i = 0; i < meta->num_backends(); ++i) {
      const auto name = meta->get_backend_name(i);
      if (name.ok()) {
        delegates_.emplace_back(*name);
      }
    }
  }

  std::vector<std::vector<float>> run(const std::vector<float>& input) override {
    // the module only reads its inputs
    auto tensor = et::extension::from_blob(const_cast<float*>(input.data()), shape_);
    const auto found = module_.forward(tensor);
    if (!found.ok()) {
      throw failure("cannot be run", found.error());
    }
    std::vector<std::vector<float>> outputs;
    for (const auto& value : found.get()) {
      const auto& output = value.toTensor();
      const float* data = output.const_data_ptr<float>();
      outputs.emplace_back(data, data + output.numel());
    }
    return outputs;
  }

  std::string version() const override { return CSPEDGE_EXECUTORCH; }

  std::vector<std::string> delegates() const override { return delegates_; }

 private:
  Failure failure(const std::string& verb, et::runtime::Error error) const {
    return Failure(Code::wrong, what_ + " " + verb + " by executorch " CSPEDGE_EXECUTORCH " (error " +
                                    std::to_string(static_cast<int>(error)) + "); build with the version in the manifest");
  }

  Bytes program_;
  std::vector<et::aten::SizesType> shape_;
  std::string what_;
  et::extension::Module module_;
  std::vector<std::string> delegates_;
};

}  // namespace

std::unique_ptr<Runtime> open_executorch(const Bundle& bundle, const nlohmann::json& artifact, unsigned threads) {
  et::runtime::register_pal(et::runtime::PalImpl::create(log, __FILE__));
  et::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(threads);
  const std::string path = artifact.at("path");
  return std::make_unique<ExecuTorch>(bundle.read(path), bundle.manifest().at("input").at("shape"), path);
}

}  // namespace cspedge
