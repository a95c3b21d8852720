# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
#
# Parsing the libraries' headers is most of the work where little is optimised, so the sanitizers'
# builds do it once:
#   millrace_precompiled_code    for libraries
#   millrace_precompiled_tests   for tests
# The usual build does without, so that an #include that is missing shows.

set(headers
  <algorithm> <array> <atomic> <chrono> <deque> <filesystem> <fstream> <functional> <limits> <map>
  <memory> <mutex> <optional> <random> <set> <sstream> <string> <thread> <utility> <variant> <vector>
  <absl/container/flat_hash_map.h> <absl/container/flat_hash_set.h>
  <absl/container/inlined_vector.h> <absl/functional/any_invocable.h> <absl/status/statusor.h>
  <absl/strings/cord.h> <absl/strings/str_cat.h> <absl/strings/str_format.h>
  <absl/strings/str_join.h> <absl/strings/str_split.h> <absl/time/clock.h> <absl/types/span.h>)
set(libraries absl::any_invocable absl::cord absl::flat_hash_map absl::flat_hash_set
  absl::inlined_vector absl::span absl::statusor absl::str_format absl::time)
if(MILLRACE_RPC)
  list(APPEND headers <google/protobuf/text_format.h> <grpcpp/generic/async_generic_service.h>
       <grpcpp/grpcpp.h>)
  list(APPEND libraries gRPC::grpc++)
endif()

# Where they are used they must have been parsed with the same options, so all get them.
add_compile_options(-pthread)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  add_compile_options(-Xclang -fno-pch-timestamp)  # Which is new with every checkout.
endif()
if(MILLRACE_CCACHE)
  # Without these it keeps nothing that was compiled with a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()

file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/precompiled.cc CONTENT "")
set(kinds code)
if(MILLRACE_TESTS)
  list(APPEND kinds tests)
endif()
foreach(kind ${kinds})
  set(target millrace_precompiled_${kind})
  add_library(${target} OBJECT EXCLUDE_FROM_ALL ${CMAKE_BINARY_DIR}/precompiled.cc)
  target_compile_options(${target} PRIVATE ${MILLRACE_WARNINGS})
  target_link_libraries(${target} PRIVATE ${libraries})
  target_precompile_headers(${target} PRIVATE ${headers})
endforeach()
if(MILLRACE_TESTS)
  target_compile_options(millrace_precompiled_tests PRIVATE -O0)
  target_link_libraries(millrace_precompiled_tests PRIVATE GTest::gmock)
  target_precompile_headers(millrace_precompiled_tests PRIVATE <gmock/gmock.h>)
endif()
