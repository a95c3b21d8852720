// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/archive.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/status.h"

namespace millrace {
namespace {

constexpr uint64_t kMostEntries = 100'000;
constexpr uint64_t kMostDirectoryBytes = uint64_t{64} << 20;
constexpr uint64_t kMostNameBytes = 1024;
// Unpacked, an archive may be so many times as large, and any may have the floor.
constexpr uint64_t kMostGrowth = 100;
constexpr uint64_t kGrowthFloor = uint64_t{64} << 20;

// Sizes and signatures of the format's records (APPNOTE.TXT 4.3).
constexpr uint64_t kEndBytes = 22;
constexpr uint32_t kEndSignature = 0x06054b50;
constexpr uint64_t kLocatorBytes = 20;
constexpr uint32_t kLocatorSignature = 0x07064b50;
constexpr uint64_t kEnd64Bytes = 56;
constexpr uint32_t kEnd64Signature = 0x06064b50;
constexpr uint64_t kCentralBytes = 46;
constexpr uint32_t kCentralSignature = 0x02014b50;
constexpr uint64_t kLocalBytes = 30;
constexpr uint32_t kLocalSignature = 0x04034b50;
constexpr uint16_t kExtraZip64 = 1;
constexpr uint16_t kEncrypted = 1;
constexpr uint16_t kStored = 0;
constexpr uint16_t kDeflated = 8;

template <typename... Pieces>
absl::Status Bad(const Pieces&... pieces) {
  return absl::InvalidArgumentError(absl::StrCat("the archive", pieces...));
}

// Little-endian numbers, one after the other; a place past the end reads as 0 and is remembered.
class Fields {
 public:
  explicit Fields(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}

  uint16_t U16() { return static_cast<uint16_t>(Take(2)); }
  uint32_t U32() { return static_cast<uint32_t>(Take(4)); }
  uint64_t U64() { return Take(8); }
  absl::Span<const uint8_t> Bytes(size_t count) {
    if (count > bytes_.size()) return short_ = true, absl::Span<const uint8_t>();
    const absl::Span<const uint8_t> taken = bytes_.first(count);
    bytes_.remove_prefix(count);
    return taken;
  }
  void Skip(size_t count) { Bytes(count); }
  bool at_end() const { return bytes_.empty(); }
  bool ok() const { return !short_; }

 private:
  uint64_t Take(size_t count) {
    uint64_t value = 0;
    const absl::Span<const uint8_t> bytes = Bytes(count);
    for (size_t i = 0; i < bytes.size(); ++i) value |= uint64_t{bytes[i]} << (8 * i);
    return value;
  }

  absl::Span<const uint8_t> bytes_;
  bool short_ = false;
};

// Where the directory lies.
struct Directory {
  uint64_t entries = 0;
  uint64_t begin = 0;
  uint64_t bytes = 0;
};

class Inspector {
 public:
  Inspector(uint64_t size, ReadAt read) : size_(size), read_(read) {}

  absl::StatusOr<std::vector<ArchiveEntry>> Inspect() {
    MILLRACE_ASSIGN_OR_RETURN(const Directory directory, FindDirectory());
    MILLRACE_RETURN_IF_ERROR(ReadDirectory(directory));
    MILLRACE_RETURN_IF_ERROR(CheckPlaces(directory.begin));
    return std::move(entries_);
  }

 private:
  absl::StatusOr<std::vector<uint8_t>> Read(uint64_t offset, uint64_t count) {
    if (offset > size_ || count > size_ - offset) return Bad(" is cut off");
    std::vector<uint8_t> bytes(count);
    if (!read_(offset, absl::MakeSpan(bytes))) return Bad(" can't be read");
    return bytes;
  }

  absl::StatusOr<Directory> FindDirectory() {
    if (size_ < kEndBytes) return Bad(" is no zip archive: it is too short");
    uint64_t end = size_ - kEndBytes;
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, Read(end, kEndBytes));
    Fields fields(bytes);
    if (fields.U32() != kEndSignature) {
      return Bad(" is no zip archive, is cut off, or has bytes behind its end");
    }
    const uint32_t disks = fields.U32();
    const uint16_t here = fields.U16();
    Directory directory = {.entries = fields.U16(), .begin = 0, .bytes = fields.U32()};
    directory.begin = fields.U32();
    if (disks != 0 || here != directory.entries || fields.U16() != 0) {
      return Bad(" has several parts or a comment");
    }
    MILLRACE_ASSIGN_OR_RETURN(const std::optional<Directory> larger, FindDirectory64(end));
    if (larger) {
      if (std::min<uint64_t>(larger->entries, 0xffff) != directory.entries ||
          std::min<uint64_t>(larger->bytes, 0xffffffff) != directory.bytes ||
          std::min<uint64_t>(larger->begin, 0xffffffff) != directory.begin) {
        return Bad(" has two directories that differ");
      }
      directory = *larger;
      end -= kLocatorBytes + kEnd64Bytes;
    }
    if (directory.entries > kMostEntries || directory.bytes > kMostDirectoryBytes) {
      return Bad(" has ", directory.entries, " files and a directory of ", directory.bytes,
                 " bytes; at most ", kMostEntries, " and ", kMostDirectoryBytes, " are taken");
    }
    if (directory.begin > end || directory.bytes != end - directory.begin) {
      return Bad(" has its directory in the wrong place");
    }
    return directory;
  }

  // The directory as archives beyond 4 GB or 65,535 files tell it.
  absl::StatusOr<std::optional<Directory>> FindDirectory64(uint64_t end) {
    if (end < kLocatorBytes + kEnd64Bytes) return std::nullopt;
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes,
                              Read(end - kLocatorBytes - kEnd64Bytes, kEnd64Bytes + kLocatorBytes));
    Fields locator(absl::MakeConstSpan(bytes).subspan(kEnd64Bytes));
    if (locator.U32() != kLocatorSignature) return std::nullopt;
    const uint32_t disk = locator.U32();
    const uint64_t place = locator.U64();
    Fields fields(bytes);
    if (disk != 0 || place != end - kLocatorBytes - kEnd64Bytes ||
        fields.U32() != kEnd64Signature || fields.U64() != kEnd64Bytes - 12) {
      return Bad(" has its end in the wrong place");
    }
    fields.Skip(4);  // Versions.
    const uint64_t disks = fields.U64();
    const uint64_t here = fields.U64();
    Directory directory = {.entries = fields.U64(), .begin = 0, .bytes = fields.U64()};
    directory.begin = fields.U64();
    if (disks != 0 || here != directory.entries) return Bad(" has several parts");
    return directory;
  }

  absl::Status ReadDirectory(const Directory& directory) {
    if (directory.bytes < directory.entries * kCentralBytes) return Bad("'s directory is cut off");
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes,
                              Read(directory.begin, directory.bytes));
    Fields fields(bytes);
    uint64_t total = 0;
    for (uint64_t i = 0; i < directory.entries; ++i) {
      MILLRACE_RETURN_IF_ERROR(ReadEntry(fields));
      if (__builtin_add_overflow(total, entries_.back().size, &total)) total = ~uint64_t{0};
    }
    if (!fields.at_end()) return Bad("'s directory is longer than its files");
    if (total > std::max(kGrowthFloor, size_ * kMostGrowth)) {
      return Bad(" of ", size_, " bytes would unpack to ", total, "; at most ", kMostGrowth,
                 " times its size is taken");
    }
    return absl::OkStatus();
  }

  absl::Status ReadEntry(Fields& fields) {
    ArchiveEntry entry;
    const bool signature = fields.U32() == kCentralSignature;
    fields.Skip(4);  // Versions.
    const uint16_t flags = fields.U16();
    const uint16_t method = fields.U16();
    fields.Skip(8);  // Time, checksum.
    entry.packed_size = fields.U32();
    entry.size = fields.U32();
    const uint16_t name_bytes = fields.U16();
    const uint16_t extra_bytes = fields.U16();
    const uint16_t comment_bytes = fields.U16();
    const uint16_t disk = fields.U16();
    fields.Skip(6);  // Attributes.
    entry.begin = fields.U32();
    const absl::Span<const uint8_t> name = fields.Bytes(name_bytes);
    entry.name.assign(name.begin(), name.end());
    const absl::Span<const uint8_t> extra = fields.Bytes(extra_bytes);
    fields.Skip(comment_bytes);
    if (!fields.ok() || !signature || disk != 0) return Bad("'s directory makes no sense");
    MILLRACE_RETURN_IF_ERROR(CheckName(entry.name));
    MILLRACE_RETURN_IF_ERROR(ReadSizes64(extra, entry));
    const auto bad = [&](const auto&... pieces) {
      return Bad("'s file '", entry.name, "' ", pieces...);
    };
    if (!names_.insert(entry.name).second) return bad("is there twice");
    if (flags & kEncrypted) return bad("is encrypted");
    if (method != kStored && method != kDeflated) return bad("is packed by method ", method);
    if (method == kStored && entry.size != entry.packed_size) return bad("has two sizes");
    entries_.push_back(std::move(entry));
    return absl::OkStatus();
  }

  static absl::Status CheckName(const std::string& name) {
    const auto bad = [&](const char* problem) {
      return Bad(" has a file '", absl::CHexEscape(name.substr(0, 128)), "', whose name ", problem);
    };
    if (name.empty() || name.size() > kMostNameBytes) return bad("is empty or too long");
    for (const char c : name) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\' || c == ':') {
        return bad("holds characters that have no place in one");
      }
    }
    if (name.front() == '/') return bad("is absolute");
    for (const absl::string_view part : absl::StrSplit(name, '/')) {
      if (part == "..") return bad("climbs");
    }
    return absl::OkStatus();
  }

  // Replaces what didn't fit into 32 bits.
  static absl::Status ReadSizes64(absl::Span<const uint8_t> extra, ArchiveEntry& entry) {
    constexpr uint64_t kElsewhere = 0xffffffff;
    Fields fields(extra);
    while (!fields.at_end()) {
      const uint16_t kind = fields.U16();
      Fields value(fields.Bytes(fields.U16()));
      if (!fields.ok()) return Bad("'s file '", entry.name, "' has a broken extra field");
      if (kind != kExtraZip64) continue;
      for (uint64_t* number : {&entry.size, &entry.packed_size, &entry.begin}) {
        if (*number == kElsewhere) *number = value.U64();
      }
      if (!value.ok()) return Bad("'s file '", entry.name, "' has no sizes");
    }
    return absl::OkStatus();
  }

  // Checks that the files lie one after the other, before the directory, and that what stands
  // before each agrees with the directory.
  absl::Status CheckPlaces(uint64_t end) {
    std::vector<const ArchiveEntry*> in_order;
    for (const ArchiveEntry& entry : entries_) in_order.push_back(&entry);
    std::sort(in_order.begin(), in_order.end(),
              [](const auto* a, const auto* b) { return a->begin < b->begin; });
    for (size_t i = 0; i < in_order.size(); ++i) {
      const ArchiveEntry& entry = *in_order[i];
      const uint64_t limit = i + 1 < in_order.size() ? in_order[i + 1]->begin : end;
      MILLRACE_ASSIGN_OR_RETURN(const uint64_t data, CheckLocalHeader(entry));
      if (data > limit || entry.packed_size > limit - data) {
        return Bad("'s file '", entry.name, "' overlaps with what follows it");
      }
    }
    return absl::OkStatus();
  }

  // Returns where the file's bytes begin.
  absl::StatusOr<uint64_t> CheckLocalHeader(const ArchiveEntry& entry) {
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes,
                              Read(entry.begin, kLocalBytes + entry.name.size()));
    Fields fields(bytes);
    const bool signature = fields.U32() == kLocalSignature;
    fields.Skip(22);
    const uint16_t name_bytes = fields.U16();
    const uint16_t extra_bytes = fields.U16();
    const absl::Span<const uint8_t> name = fields.Bytes(entry.name.size());
    if (!signature || name_bytes != entry.name.size() ||
        !std::equal(name.begin(), name.end(), entry.name.begin(),
                    [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); })) {
      return Bad("'s file '", entry.name, "' isn't where the directory says");
    }
    return entry.begin + bytes.size() + extra_bytes;
  }

  const uint64_t size_;
  const ReadAt read_;
  absl::flat_hash_set<std::string> names_;
  std::vector<ArchiveEntry> entries_;
};

}  // namespace

absl::StatusOr<std::vector<ArchiveEntry>> InspectArchive(uint64_t size, ReadAt read) {
  return Inspector(size, read).Inspect();
}

}  // namespace millrace
