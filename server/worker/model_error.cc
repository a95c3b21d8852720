// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/model_error.h"

#include <c10/util/Exception.h>

#include <exception>
#include <new>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace millrace {
namespace {

// TorchScript's interpreter rethrows everything as a std::runtime_error, so that only the text
// tells that memory ran out.
bool SaysOutOfMemory(absl::string_view text) {
  return absl::StrContains(text, "out of memory") ||
         absl::StrContains(text, "can't allocate memory");
}

absl::Status FromText(absl::string_view text) {
  const absl::string_view message = absl::StripAsciiWhitespace(text);
  if (SaysOutOfMemory(message)) return absl::ResourceExhaustedError(message);
  if (absl::StrContains(message, "does not have a deterministic implementation")) {
    return absl::FailedPreconditionError(
        absl::StrCat("the config says deterministic, which the model can't promise; remove it from "
                     "millrace.numerics, or change the model: ",
                     message));
  }
  return absl::InternalError(message);
}

bool ContinuesCharacter(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

}  // namespace

absl::Status StatusOfException() {
  try {
    throw;
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(error.what_without_backtrace());
  } catch (const c10::Error& error) {
    return FromText(error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("The worker ran out of memory.");
  } catch (const std::exception& error) {
    return FromText(error.what());
  } catch (...) {
    return absl::InternalError("The model threw something that is no std::exception.");
  }
}

std::string Shortened(const std::string& message, size_t most) {
  constexpr absl::string_view kGap = "\n…\n";
  if (message.size() <= most) return message;
  size_t head = (most - kGap.size()) / 2;
  size_t tail = message.size() - (most - kGap.size() - head);
  while (head > 0 && ContinuesCharacter(message[head])) --head;
  while (tail < message.size() && ContinuesCharacter(message[tail])) ++tail;
  return message.substr(0, head) + std::string(kGap) + message.substr(tail);
}

}  // namespace millrace
