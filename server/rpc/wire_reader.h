// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "grpcpp/support/slice.h"
#include "server/inference/payload.h"

namespace millrace {

// Reads protobuf's wire format where it lies, in the slices of a received message. It takes and
// refuses exactly what libprotobuf 3.21 does. A copy is a second cursor at the same place.
// Thread-compatible. The slices must stay where they are: short ones hold their bytes themselves.
//
// Every Read… and Skip… returns false where the bytes up to the limit hold no such thing; what was
// asked for and the position are then unspecified.
class WireReader {
 public:
  explicit WireReader(absl::Span<const grpc::Slice> slices);

  // Whether the limit is reached: the end of the message, or of the one entered last.
  bool AtEnd() const { return left_ == 0; }

  // Reads a field's tag. An end-group tag is not taken: groups are only skipped as a whole.
  bool ReadTag(uint32_t* tag);

  bool ReadVarint(uint64_t* value);
  bool ReadFixed32(uint32_t* value);
  bool ReadFixed64(uint64_t* value);

  // Reads a length, and refuses one that goes past the limit.
  bool ReadLength(size_t* length);

  // Reads `length` bytes into `text`, replacing what is there.
  bool ReadText(size_t length, std::string* text);

  // Appends the next `length` bytes to `payload`, as pieces of the slices.
  bool ReadPayload(size_t length, Payload* payload);

  // Reads a length and makes its end the limit; Leave() with the same `outer` puts the limit back.
  bool Enter(size_t* outer);
  bool Leave(size_t outer);

  // Skips the value of an unknown field whose tag was just read.
  bool SkipField(uint32_t tag);

 private:
  bool ReadRawTag(uint32_t* tag);
  bool ReadByte(uint8_t* byte);
  bool Skip(size_t length);
  bool SkipGroup(uint32_t number);
  void NextSlice();

  // Calls take(bytes, count) for the pieces of the next `length` bytes.
  template <typename Take>
  bool ForEachPiece(size_t length, Take take);

  const grpc::Slice* next_;        // The slice after the current one.
  const uint8_t* at_ = nullptr;    // The next byte, in the current slice.
  const uint8_t* stop_ = nullptr;  // The current slice's end.
  size_t left_ = 0;                // Bytes up to the limit; the slices hold at least as many.
  int depth_ = 100;                // How many more levels may be entered, as libprotobuf's default.
};

}  // namespace millrace
