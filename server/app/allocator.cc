// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <jemalloc/jemalloc.h>

// The server's allocator reads its settings here (decision 0016); MALLOC_CONF in the environment
// goes before them. What has been free for five seconds goes back to the system, also while
// nothing is allocated, for which a thread of its own is needed.
const char* malloc_conf =
    "background_thread:true,max_background_threads:1,dirty_decay_ms:5000,muzzy_decay_ms:0";
