// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/credentials_store.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/access/eventually.h"
#include "tests/unit/access/test_certificate.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const absl::Time kEnd = absl::FromUnixSeconds(2'000'000'000);

std::string Line(absl::string_view token) {
  const TokenHash hash = HashOf(token);
  return absl::StrCat("infer ", absl::BytesToHexString(absl::string_view(
                                    reinterpret_cast<const char*>(hash.data()), hash.size())));
}

// Files in a folder of the test's own.
class CredentialsStoreTest : public testing::Test {
 protected:
  ~CredentialsStoreTest() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(Path(name + ".new")) << text;
    fs::rename(Path(name + ".new"), Path(name));
  }

  void Write(const TestCertificate& both) const {
    Write("key", both.key);
    Write("certificate", both.certificate);
  }

  absl::StatusOr<std::unique_ptr<CredentialsStore>> WithTls() const {
    return CredentialsStore::Create(
        {.certificate_file = Path("certificate"), .key_file = Path("key")}, Clock::Real());
  }

 private:
  const fs::path folder_ = [] {
    std::string made = (fs::temp_directory_path() / "credentials-XXXXXX").string();
    return fs::path(mkdtemp(made.data()));
  }();
};

TEST_F(CredentialsStoreTest, WithoutFilesNothingIsDemanded) {
  const auto store = CredentialsStore::Create({}, Clock::Real());
  ASSERT_TRUE(store.ok());
  EXPECT_EQ((*store)->certificate(), nullptr);
  EXPECT_EQ((*store)->tokens(), nullptr);
}

TEST_F(CredentialsStoreTest, BadFilesAreNamedAtTheStart) {
  const TestCertificate one = MakeTestCertificate(1, kEnd);
  Write({one.certificate, MakeTestCertificate(2, kEnd).key});
  EXPECT_THAT(WithTls().status().message(), HasSubstr(Path("certificate")));
  const auto store = CredentialsStore::Create({.token_file = Path("missing")}, Clock::Real());
  EXPECT_THAT(store.status().message(), HasSubstr(Path("missing")));
}

TEST_F(CredentialsStoreTest, NewCertificateIsTakenOverAndABadOneIsNot) {
  Write(MakeTestCertificate(1, kEnd));
  const auto store = WithTls();
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ((*store)->certificate()->serial, "01");

  const TestCertificate two = MakeTestCertificate(2, kEnd);
  Write("certificate", two.certificate);  // The key comes later.
  Clock::Real().SleepFor(absl::Milliseconds(2500));
  EXPECT_EQ((*store)->certificate()->serial, "01");
  Write("key", two.key);
  EXPECT_TRUE(Eventually([&] { return (*store)->certificate()->serial == "02"; }));
}

TEST_F(CredentialsStoreTest, TokensAreTakenOver) {
  Write("tokens", Line("old"));
  const auto store = CredentialsStore::Create({.token_file = Path("tokens")}, Clock::Real());
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_NE((*store)->tokens()->ClassesOf("old"), 0u);
  Write("tokens", Line("new"));
  EXPECT_TRUE(Eventually([&] { return (*store)->tokens()->ClassesOf("new") != 0; }));
  EXPECT_EQ((*store)->tokens()->ClassesOf("old"), 0u);
}

TEST_F(CredentialsStoreTest, RereadTakesOverWhatIsGoodAtOnceAndNamesWhatIsNot) {
  Write(MakeTestCertificate(1, kEnd));
  Write("tokens", Line("old"));
  const auto store = CredentialsStore::Create({.certificate_file = Path("certificate"),
                                               .key_file = Path("key"),
                                               .token_file = Path("tokens")},
                                              Clock::Real());
  ASSERT_TRUE(store.ok()) << store.status();

  Write("certificate", "no certificate");
  Write("tokens", Line("new"));
  const absl::Status status = (*store)->Reread();

  EXPECT_THAT(status.message(), HasSubstr(Path("certificate")));
  EXPECT_EQ((*store)->certificate()->serial, "01");
  EXPECT_NE((*store)->tokens()->ClassesOf("new"), 0u);
}

// As Kubernetes mounts a secret.
TEST_F(CredentialsStoreTest, LinkThatComesToLeadElsewhereIsAChange) {
  Write("one", Line("old"));
  Write("two", Line("new"));
  fs::create_symlink(Path("one"), Path("tokens"));
  const auto store = CredentialsStore::Create({.token_file = Path("tokens")}, Clock::Real());
  ASSERT_TRUE(store.ok()) << store.status();
  fs::create_symlink(Path("two"), Path("tokens.new"));
  fs::rename(Path("tokens.new"), Path("tokens"));
  EXPECT_TRUE(Eventually([&] { return (*store)->tokens()->ClassesOf("new") != 0; }));
}

}  // namespace
}  // namespace millrace
