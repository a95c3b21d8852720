// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/file_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace millrace {
namespace {

using ::testing::HasSubstr;

constexpr EngineKind kScript = EngineKind::kTorchScript;
constexpr EngineKind kPackage = EngineKind::kAotInductor;

FileGlance Bytes(std::string bytes) {
  FileGlance glance;
  glance.size = bytes.size();
  glance.beginning = std::move(bytes);
  return glance;
}

FileGlance Archive(std::vector<std::string> names, std::string pickle = "") {
  FileGlance glance = Bytes("PK\x03\x04 and so on");
  glance.names = std::move(names);
  glance.pickle = std::move(pickle);
  return glance;
}

std::string What(EngineKind engine, const FileGlance& glance) {
  const absl::Status status = CheckFileKind(engine, glance);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

const std::vector<std::string> kScriptNames = {"net/data.pkl", "net/code/__torch__.py",
                                               "net/constants.pkl"};
const std::vector<std::string> kPackageNames = {"net/archive_format",
                                                "net/data/aotinductor/model/x.wrapper.so"};

TEST(FileKind, WhatTheEngineRunsPasses) {
  EXPECT_EQ(CheckFileKind(kScript, Archive(kScriptNames)), absl::OkStatus());
  EXPECT_EQ(CheckFileKind(kPackage, Archive(kPackageNames)), absl::OkStatus());
}

TEST(FileKind, TheOtherEnginesFileIsToBeRenamed) {
  EXPECT_THAT(What(kPackage, Archive(kScriptNames)), HasSubstr("name it model.pt"));
  EXPECT_THAT(What(kScript, Archive(kPackageNames)), HasSubstr("name it model.pt2"));
}

TEST(FileKind, ArchivesOfTorchSaveAreToldApart) {
  const std::vector<std::string> names = {"net/data.pkl", "net/data/0", "net/version"};
  EXPECT_THAT(What(kScript, Archive(names, "ccollections\nOrderedDict\n _rebuild_tensor_v2")),
              HasSubstr("state_dict"));
  EXPECT_THAT(What(kScript, Archive(names, "_parameters _modules _rebuild_tensor_v2")),
              HasSubstr("a module that torch.save has pickled"));
  EXPECT_THAT(What(kScript, Archive(names, "pytorch-lightning_version _rebuild_tensor_v2")),
              HasSubstr("Lightning checkpoint"));
  EXPECT_THAT(What(kScript, Archive(names, "builtins\nrange")), HasSubstr("pickled"));
  EXPECT_THAT(What(kPackage, Archive(names, "_rebuild_tensor_v2")), HasSubstr("state_dict"));
}

TEST(FileKind, AnExportedProgramIsToBeCompiled) {
  for (const char* const name : {"net/models/model.json", "serialized_exported_program.json",
                                 "net/serialized_exported_program.json"}) {
    EXPECT_THAT(What(kPackage, Archive({"net/version", name})),
                HasSubstr("aoti_compile_and_package"));
  }
}

TEST(FileKind, OtherFormatsAreRecognisedByTheirBytes) {
  EXPECT_THAT(What(kScript, Bytes("")), HasSubstr("empty"));
  EXPECT_THAT(What(kScript, Bytes("\x08\x08\x12\x07pytorch")), HasSubstr("ONNX"));
  EXPECT_THAT(What(kScript, Bytes(std::string("\x40\0\0\0\0\0\0\0{\"weight\":{}}", 22))),
              HasSubstr("safetensors"));
  EXPECT_THAT(What(kScript, Bytes("version https://git-lfs.github.com/spec/v1\n")),
              HasSubstr("git lfs pull"));
  EXPECT_THAT(What(kScript, Bytes("\x80\x04\x95 a pickle")), HasSubstr("pickled"));
  EXPECT_THAT(What(kScript, Bytes("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
                                  "\x80\x02 _rebuild_tensor_v2")),
              HasSubstr("state_dict"));
}

TEST(FileKind, NothingIsSaidOfWhatIsntKnown) {
  for (const std::string& bytes :
       {std::string("This is not a model."),
        std::string("\x7f"
                    "ELF"),
        std::string("PK\x03\x04"), std::string(1, '\x80'), std::string(100, '\0')}) {
    EXPECT_EQ(CheckFileKind(kScript, Bytes(bytes)), absl::OkStatus()) << bytes;
  }
  EXPECT_EQ(CheckFileKind(kScript, Archive({"word/document.xml"})), absl::OkStatus());
}

TEST(FileKind, AnyBeginningIsJudgedWithoutHarm) {
  const std::string whole("\x08\x08\x12\x07pytorch\0\0{\"", 14);
  for (size_t size = 0; size <= whole.size(); ++size) {
    for (size_t begin = 0; begin <= size; ++begin) {
      CheckFileKind(kPackage, Bytes(whole.substr(begin, size - begin))).IgnoreError();
    }
  }
}

}  // namespace
}  // namespace millrace
