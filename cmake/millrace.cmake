# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
#
# Compiler settings, third-party libraries, and the three functions every folder is built with:
#   millrace_library(NAME SOURCES … DEPS … [PRIVATE_DEPS …])   the folder's static library
#   millrace_program(NAME SOURCES … DEPS …)                    a program in build/bin
#   millrace_unit_test(NAME SOURCES … DEPS … [LABELS …])       a GoogleTest program, label `unit`

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
find_program(MILLRACE_CCACHE ccache)
if(MILLRACE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${MILLRACE_CCACHE})
endif()

# Warnings are errors. They apply to our own targets only; third-party headers are SYSTEM.
set(MILLRACE_WARNINGS -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor -Wimplicit-fallthrough)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  list(APPEND MILLRACE_WARNINGS -Wthread-safety)
endif()

if(MILLRACE_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  list(APPEND MILLRACE_WARNINGS -Wno-maybe-uninitialized)  # Often wrong where sanitizers add code.
endif()
if(MILLRACE_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=address,undefined)
elseif(MILLRACE_SANITIZE STREQUAL "thread")
  # protobuf's headers lay map fields out differently where this macro is set, and Debian's library
  # was built without it. libstdc++ still gets to know.
  add_compile_options(-U__SANITIZE_THREAD__ -D_GLIBCXX_TSAN=1)
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=thread)
elseif(NOT MILLRACE_SANITIZE STREQUAL "")
  message(FATAL_ERROR "MILLRACE_SANITIZE is '${MILLRACE_SANITIZE}'; expected 'address' or 'thread'.")
endif()

find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(Protobuf REQUIRED)
find_package(spdlog REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED COMPONENTS core)
if(MILLRACE_RPC)
  find_package(gRPC CONFIG REQUIRED)
endif()
if(MILLRACE_TESTS)
  find_package(GTest REQUIRED)
endif()

if(MILLRACE_SANITIZE)
  include(${CMAKE_CURRENT_LIST_DIR}/precompiled.cmake)
endif()

function(millrace_library NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(${NAME} STATIC ${ARG_SOURCES})
  target_compile_options(${NAME} PRIVATE ${MILLRACE_WARNINGS})
  target_include_directories(${NAME} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
  target_link_libraries(${NAME} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
  if(TARGET millrace_precompiled_code)
    target_precompile_headers(${NAME} REUSE_FROM millrace_precompiled_code)
  endif()
endfunction()

function(millrace_program NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${NAME} ${ARG_SOURCES})
  target_compile_options(${NAME} PRIVATE ${MILLRACE_WARNINGS})
  target_include_directories(${NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${NAME} PRIVATE ${ARG_DEPS})
endfunction()

function(millrace_unit_test NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${NAME} ${ARG_SOURCES})
  set_target_properties(${NAME} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  # A test's own code isn't worth optimising: it takes longer to compile than to run.
  target_compile_options(${NAME} PRIVATE ${MILLRACE_WARNINGS} -O0)
  target_include_directories(${NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${NAME} PRIVATE ${ARG_DEPS} GTest::gmock_main)
  if(TARGET millrace_precompiled_tests)
    target_precompile_headers(${NAME} REUSE_FROM millrace_precompiled_tests)
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  add_test(NAME ${NAME} COMMAND ${NAME})
  set_tests_properties(${NAME} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 900)
endfunction()
