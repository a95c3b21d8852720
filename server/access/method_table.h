// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace millrace {

// What a method lets its caller do; tokens name these classes.
enum class MethodClass {
  kOpen,   // Nothing worth guarding: the health service, which probes ask without a token.
  kInfer,  // Have a model run.
  kRead,   // See what is served, how, and how it does.
  kAdmin,  // Change what is served, or end the server.
};

// As token files and people write it: "infer".
absl::string_view NameOf(MethodClass method_class);

struct ClassifiedMethod {
  absl::string_view path;  // As on the wire: "/package.Service/Method".
  MethodClass method_class;
};

// Every method that any listener of Millrace offers, ascending by path. What isn't in this table is
// denied wherever calls are checked; a test holds it against what the services declare.
absl::Span<const ClassifiedMethod> AllMethods();

// The class of the method that `path` names; nullopt where there is none.
std::optional<MethodClass> ClassOf(absl::string_view path);

}  // namespace millrace
