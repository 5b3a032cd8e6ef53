#include "runtime.h"

#include "failure.h"

namespace cspedge {

bool runs(const nlohmann::json& artifact) {
#ifdef CSPEDGE_EXECUTORCH
  if (artifact.at("backend") == "executorch") {
    return true;
  }
#endif
#ifdef CSPEDGE_OPENVINO
  if (artifact.at("backend") == "openvino") {
    return true;
  }
#endif
  return false;
}

std::unique_ptr<Runtime> open(const Bundle& bundle, const nlohmann::json& artifact, unsigned threads) {
#ifdef CSPEDGE_EXECUTORCH
  if (artifact.at("backend") == "executorch") {
    return open_executorch(bundle, artifact, threads);
  }
#endif
#ifdef CSPEDGE_OPENVINO
  if (artifact.at("backend") == "openvino") {
    return open_openvino(bundle, artifact, threads);
  }
#endif
  throw Failure(Code::missing, Bundle::label(artifact) + " needs " + artifact.at("runtime").at("name").get<std::string>() +
                                   ", and this program was built without it; name its folder in CMAKE_PREFIX_PATH");
}

}  // namespace cspedge
