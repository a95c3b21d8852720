// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/python_tool.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "client/cli/command_line.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/temporary_folder.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

class PythonTool : public testing::Test {
 protected:
  // Makes a program, and returns its path.
  std::string Program(const std::string& name) {
    const fs::path path = folder_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << "#!/bin/sh\n";
    fs::permissions(path, fs::perms::owner_all);
    return path.string();
  }

  TemporaryFolder folder_;
};

TEST_F(PythonTool, PythonIsTheOneNamedElseTheBuildsElseThePaths) {
  const std::string named = Program("other/python3.12");
  const std::string of_path = Program("usr/bin/python3");
  const std::string bin = folder_ / "build/bin";
  const std::string path = absl::StrCat("/nowhere:", folder_ / "usr/bin");

  EXPECT_EQ(*FindPython("", bin, path), of_path);
  const std::string of_build = Program(".venv/bin/python");
  EXPECT_EQ(*FindPython("", bin, path), of_build);
  EXPECT_EQ(*FindPython(named, bin, path), named);
  EXPECT_EQ(*FindPython("python3", bin, path), of_path);
}

TEST_F(PythonTool, MissingPythonIsToldWithWhereItWasLookedFor) {
  const std::string bin = folder_ / "build/bin";
  EXPECT_THAT(FindPython("/nowhere/python", bin, "").status().message(),
              HasSubstr("MILLRACE_PYTHON is '/nowhere/python', which is no program"));
  EXPECT_THAT(FindPython(folder_ / "", bin, "").status().message(), HasSubstr("is no program"));
  EXPECT_THAT(FindPython("", bin, "/nowhere").status().message(),
              HasSubstr(absl::StrCat("neither ", folder_ / ".venv/bin/python", " nor a python3")));
}

TEST_F(PythonTool, CompileWithoutAPythonFails) {
  setenv("MILLRACE_PYTHON", "/nowhere/python", /*overwrite=*/1);
  std::ostringstream out, err;
  EXPECT_EQ(RunCommandLine({"compile", "nets:make", "--input", "3:FP32"}, out, err, false), 1);
  unsetenv("MILLRACE_PYTHON");
  EXPECT_THAT(err.str(), HasSubstr("MILLRACE_PYTHON is '/nowhere/python'"));
}

}  // namespace
}  // namespace millrace
