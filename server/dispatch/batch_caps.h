// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/inference/row_shape.h"

namespace millrace {

// How large a batch of each shape may be, since larger ones ran out of memory: half as large as the
// smallest that did. The cap doubles for every minute in which none does, since memory may have
// been freed. Thread-compatible.
class BatchCaps {
 public:
  static constexpr absl::Duration kDoublesAfter = absl::Minutes(1);

  // Takes note of a batch of `rows` rows that ran out of memory. One row alone says nothing of
  // sizes: then what was thought of the shape is forgotten.
  void RanOut(const RowShape& shape, int64_t rows, absl::Time now);

  // At most `most`.
  int64_t For(const RowShape& shape, int64_t most, absl::Time now) const;

 private:
  struct Cap {
    int64_t rows;
    absl::Time since;
  };
  absl::flat_hash_map<RowShape, Cap> caps_;
};

}  // namespace millrace
