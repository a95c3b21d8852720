// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/file_kind.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace millrace {
namespace {

// How a file of the other kinds becomes one that can be served.
constexpr char kScriptIt[] =
    "in Python, build the module, load the weights into it and save "
    "torch.jit.script(module.eval()) as model.pt";
constexpr char kCompileIt[] =
    "compile it: torch._inductor.aoti_compile_and_package(torch.export.load(file), "
    "package_path=\"model.pt2\")";

// What torch.save wrote before it wrote archives: the pickle of a magic number.
constexpr absl::string_view kLegacySave("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
                                        15);

// Without the folder that the archive's own name is.
absl::string_view InArchive(absl::string_view name) {
  return name.substr(std::min(name.size(), name.find('/') + 1));
}

bool HasFile(const FileGlance& glance, absl::string_view name) {
  return std::any_of(glance.names.begin(), glance.names.end(),
                     [&](const std::string& file) { return InArchive(file) == name; });
}

bool HasFolder(const FileGlance& glance, absl::string_view name) {
  return std::any_of(glance.names.begin(), glance.names.end(), [&](const std::string& file) {
    return absl::StartsWith(InArchive(file), name);
  });
}

std::string DescribePickle(absl::string_view pickle) {
  if (absl::StrContains(pickle, "pytorch-lightning_version")) {
    return absl::StrCat(
        "it is a Lightning checkpoint, which holds weights and the state of a training but not the "
        "model's code; ",
        "in Python, load it (Module.load_from_checkpoint) and save torch.jit.script(module.eval()) "
        "as model.pt");
  }
  if (absl::StrContains(pickle, "_modules") && absl::StrContains(pickle, "_parameters")) {
    return absl::StrCat(
        "it is a module that torch.save has pickled, which only Python with the module's classes "
        "can read; in Python, load it and save torch.jit.script(module.eval()) as model.pt");
  }
  if (absl::StrContains(pickle, "_rebuild_tensor")) {
    return absl::StrCat(
        "it is a state_dict or another checkpoint of torch.save, which holds weights but not the "
        "model's code; ",
        kScriptIt);
  }
  return absl::StrCat("it is a Python object that was pickled, and no model; ", kScriptIt);
}

// ModelProto of ONNX begins with its field 1, a small version, and another of its fields.
bool IsOnnx(absl::string_view bytes) {
  constexpr absl::string_view kNextFields("\x12\x1a\x22\x2a\x32\x3a\x42");
  return bytes.size() > 2 && bytes[0] == 8 && bytes[1] > 0 && bytes[1] < 32 &&
         absl::StrContains(kNextFields, bytes[2]);
}

// A JSON object behind its length.
bool IsSafetensors(absl::string_view bytes) {
  return bytes.size() > 9 && bytes.substr(6, 3) == absl::string_view("\0\0{", 3) && bytes[9] == '"';
}

// What a file that is no archive is; empty where that isn't known.
std::string DescribeBytes(const FileGlance& glance) {
  const absl::string_view bytes = glance.beginning;
  if (glance.size == 0) return "it is empty; was it copied whole?";
  if (absl::StartsWith(bytes, kLegacySave)) return DescribePickle(bytes);
  if (bytes.size() > 1 && bytes[0] == '\x80' && bytes[1] >= 2 && bytes[1] <= 5) {
    return DescribePickle(bytes);
  }
  if (absl::StartsWith(bytes, "version https://git-lfs")) {
    return "it is a pointer of Git LFS; fetch the file itself: git lfs pull";
  }
  if (IsSafetensors(bytes)) {
    return absl::StrCat("it is a safetensors file, which holds weights but not the model's code; ",
                        kScriptIt);
  }
  if (IsOnnx(bytes)) {
    return "it is an ONNX model, which Millrace doesn't run; export the PyTorch module that it was "
           "made from with torch.jit or torch.export";
  }
  return "";
}

std::string DescribeArchive(EngineKind engine, const FileGlance& glance) {
  const bool script = IsTorchScript(glance);
  const bool package = HasFolder(glance, "data/aotinductor/");
  if (script && engine == EngineKind::kAotInductor) {
    return "it is TorchScript; name it model.pt";
  }
  if (package && engine == EngineKind::kTorchScript) {
    return "it is an AOTInductor package; name it model.pt2";
  }
  if (script || package) return "";
  if (HasFolder(glance, "models/") || HasFile(glance, "serialized_exported_program.json")) {
    return absl::StrCat("it is a program that torch.export.save wrote and that isn't compiled; ",
                        kCompileIt);
  }
  return HasFile(glance, "data.pkl") ? DescribePickle(glance.pickle) : "";
}

}  // namespace

bool IsTorchScript(const FileGlance& glance) { return HasFile(glance, "constants.pkl"); }

absl::Status CheckFileKind(EngineKind engine, const FileGlance& glance) {
  std::string what = glance.names.empty() ? DescribeBytes(glance) : DescribeArchive(engine, glance);
  return what.empty() ? absl::OkStatus() : absl::InvalidArgumentError(std::move(what));
}

}  // namespace millrace
