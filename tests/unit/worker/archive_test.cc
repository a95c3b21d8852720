// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace millrace {
namespace {

using ::testing::HasSubstr;

std::string Number(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text.push_back(static_cast<char>(value >> (8 * i)));
  return text;
}

// A file as an archive tells of it, rightly or not.
struct File {
  std::string name;
  std::string content = "content";
  uint32_t size = 7;
  uint32_t packed_size = 7;
  uint16_t method = 0;
  uint16_t flags = 0;
  int32_t misplaced = 0;  // Of its header, in the directory.
};

// A zip archive of them.
std::string Zip(const std::vector<File>& files, bool large = false) {
  std::string bytes;
  std::string directory;
  for (const File& file : files) {
    const std::string common = Number(file.flags, 2) + Number(file.method, 2) +
                               std::string(8, '\0') + Number(file.packed_size, 4) +
                               Number(file.size, 4) + Number(file.name.size(), 2);
    directory += "PK\1\2" + Number(20, 2) + Number(20, 2) + common + std::string(12, '\0') +
                 Number(bytes.size() + static_cast<uint64_t>(file.misplaced), 4) + file.name;
    bytes += "PK\3\4" + Number(20, 2) + common + Number(0, 2) + file.name + file.content;
  }
  const uint64_t begin = bytes.size();
  bytes += directory;
  if (large) {
    const uint64_t end = bytes.size();
    bytes += "PK\6\6" + Number(44, 8) + Number(0, 4) + Number(0, 8) + Number(files.size(), 8) +
             Number(files.size(), 8) + Number(directory.size(), 8) + Number(begin, 8);
    bytes += "PK\6\7" + Number(0, 4) + Number(end, 8) + Number(1, 4);
  }
  return bytes + "PK\5\6" + Number(0, 4) + Number(files.size(), 2) + Number(files.size(), 2) +
         Number(directory.size(), 4) + Number(begin, 4) + Number(0, 2);
}

absl::StatusOr<std::vector<ArchiveEntry>> Inspect(const std::string& bytes) {
  return InspectArchive(bytes.size(), [&](uint64_t offset, absl::Span<uint8_t> to) {
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), to.size(), to.begin());
    return true;
  });
}

std::string Problem(const std::string& bytes) {
  const auto entries = Inspect(bytes);
  if (entries.ok()) return "";
  EXPECT_EQ(entries.status().code(), absl::StatusCode::kInvalidArgument) << entries.status();
  return std::string(entries.status().message());
}

TEST(Archive, ListsItsFiles) {
  for (const bool large : {false, true}) {
    const auto entries = Inspect(Zip({{.name = "model/data.pkl"},
                                      {.name = "model/code/model.py",
                                       .content = "xy",
                                       .size = 300,
                                       .packed_size = 2,
                                       .method = 8}},
                                     large));
    ASSERT_TRUE(entries.ok()) << entries.status();
    ASSERT_EQ(entries->size(), 2u);
    EXPECT_EQ((*entries)[0].name, "model/data.pkl");
    EXPECT_EQ((*entries)[1].packed_size, 2u);
    EXPECT_EQ((*entries)[1].size, 300u);
  }
}

TEST(Archive, EveryBeginningOfAnArchiveIsRefused) {
  const std::string whole = Zip({{.name = "a"}, {.name = "b"}}, true);
  ASSERT_TRUE(Inspect(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_NE(Problem(whole.substr(0, size)), "") << size;
  }
  EXPECT_THAT(Problem(whole + "x"), HasSubstr("has bytes behind its end"));
}

TEST(Archive, NamesThatLeaveTheFolderAreRefused) {
  EXPECT_THAT(Problem(Zip({{.name = "/etc/passwd"}})), HasSubstr("is absolute"));
  EXPECT_THAT(Problem(Zip({{.name = "a/../../b"}})), HasSubstr("climbs"));
  EXPECT_THAT(Problem(Zip({{.name = ".."}})), HasSubstr("climbs"));
  EXPECT_THAT(Problem(Zip({{.name = "a\\..\\b"}})), HasSubstr("no place in one"));
  EXPECT_THAT(Problem(Zip({{.name = std::string("a\0b", 3)}})), HasSubstr("no place in one"));
  EXPECT_THAT(Problem(Zip({{.name = ""}})), HasSubstr("is empty"));
  EXPECT_EQ(Problem(Zip({{.name = "a/..b/c.."}})), "");
}

TEST(Archive, FilesThatOverlapAreRefused) {
  EXPECT_THAT(Problem(Zip({{.name = "a"}, {.name = "b", .misplaced = 1}})),
              HasSubstr("isn't where the directory says"));
  EXPECT_THAT(Problem(Zip({{.name = "a", .size = 60, .packed_size = 60}, {.name = "b"}})),
              HasSubstr("overlaps"));
  EXPECT_THAT(Problem(Zip({{.name = "a", .size = 8, .packed_size = 8}})), HasSubstr("overlaps"));
  EXPECT_THAT(Problem(Zip({{.name = "a", .misplaced = 1 << 30}})), HasSubstr("is cut off"));
}

TEST(Archive, FilesThatArentPlainAreRefused) {
  EXPECT_THAT(Problem(Zip({{.name = "a"}, {.name = "a"}})), HasSubstr("is there twice"));
  EXPECT_THAT(Problem(Zip({{.name = "a", .flags = 1}})), HasSubstr("is encrypted"));
  EXPECT_THAT(Problem(Zip({{.name = "a", .method = 14}})), HasSubstr("is packed by method 14"));
  EXPECT_THAT(Problem(Zip({{.name = "a", .size = 8}})), HasSubstr("has two sizes"));
}

TEST(Archive, OneThatWouldUnpackToAHundredTimesItsSizeIsRefused) {
  const uint32_t most = 64 << 20;
  EXPECT_EQ(Problem(Zip({{.name = "a", .size = most, .method = 8}})), "");
  EXPECT_THAT(Problem(Zip({{.name = "a", .size = most, .method = 8}, {.name = "b"}})),
              HasSubstr("at most 100 times its size is taken"));
}

TEST(Archive, AChangedByteNeverDoesMoreThanGiveAnError) {
  const std::string whole = Zip({{.name = "a"}, {.name = "b"}}, true);
  int refused = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const char value : {'\0', '\1', '\x7f', '\xff'}) {
      std::string changed = whole;
      changed[at] = value;
      refused += !Inspect(changed).ok();
    }
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace millrace
