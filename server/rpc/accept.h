// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace millrace {

// Makes listening survive a lack of file descriptors. gRPC (1.51) closes a listening socket's ear
// for good when accept4() fails, be it for a moment. So accept.cc defines accept4() in the place of
// the C library's: where there is no descriptor for a connection, it is accepted with one that is
// kept for this and closed at once, so its peer is refused instead of left waiting; other failures
// of a single connection are passed over.
//
// Opens the descriptor that is kept. Call before listening.
void KeepDescriptorForAccepting();

}  // namespace millrace
