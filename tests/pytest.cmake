# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
#
#   millrace_pytest(FILE LABEL [BESIDE] [FIXTURES …])   a file of tests in Python as one ctest test
#
# They share the machine's cores and start servers of their own, so they run one at a time, but for
# those that judge no time and use little of the cores: BESIDE others.

set(MILLRACE_TEST_PYTHON ${PROJECT_SOURCE_DIR}/.venv/bin/python)
if(NOT EXISTS ${MILLRACE_TEST_PYTHON})
  set(MILLRACE_TEST_PYTHON python3)
endif()

function(millrace_pytest FILE LABEL)
  cmake_parse_arguments(ARG "BESIDE" "" "FIXTURES" ${ARGN})
  set(alone TRUE)
  if(ARG_BESIDE)
    set(alone FALSE)
  endif()
  get_filename_component(name ${FILE} NAME_WE)
  add_test(NAME ${name} COMMAND ${MILLRACE_TEST_PYTHON} -m pytest -q
           ${CMAKE_CURRENT_SOURCE_DIR}/${FILE})
  set_tests_properties(${name} PROPERTIES
    LABELS "${LABEL}" RUN_SERIAL ${alone} TIMEOUT 600 FIXTURES_REQUIRED "${ARG_FIXTURES}"
    ENVIRONMENT "MILLRACE_BIN=${CMAKE_BINARY_DIR}/bin;MILLRACE_TEST_MODELS=${CMAKE_BINARY_DIR}/models;MILLRACE_DEMO_MODELS=${CMAKE_BINARY_DIR}/demo-models")
endfunction()
