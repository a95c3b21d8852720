# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
#
# What `cmake --install build --prefix PREFIX` installs, by component:
#   server  bin/millrace-server, bin/millrace-worker, and in lib/millrace the libtorch it was built with
#   cli     bin/millrace, which finds the server beside itself
#   doc     share/doc/millrace
#   client  the library for find_package(millrace_client), see client/CMakeLists.txt
# It can be moved: programs find each other, their scripts and libtorch relative to themselves.
# With --strip, libtorch loses the symbols that only debuggers read, a fifth of its size.
set(millrace_python share/millrace/python)
set(millrace_doc share/doc/millrace)

function(millrace_install_libtorch)
  # Of a wheel as of an archive of libtorch: all but what is for Python and its own tests.
  file(GLOB libraries ${MILLRACE_TORCH_ROOT}/lib/*.so ${MILLRACE_TORCH_ROOT}/lib/*.so.*)
  list(FILTER libraries EXCLUDE REGEX
    "lib(torch_python|torch_global_deps|shm|caffe2_nvrtc_stub|backend_with_compiler|aoti_custom_ops|.*_test)\\.so")
  if(EXISTS ${MILLRACE_TORCH_ROOT}/lib/libtorch_cuda.so)
    # A wheel for CUDA takes CUDA's libraries from wheels that lie beside it.
    file(GLOB cuda ${MILLRACE_TORCH_ROOT}/../nvidia/*/lib/*.so.*
      ${MILLRACE_TORCH_ROOT}/../cusparselt/lib/*.so.*)
    list(APPEND libraries ${cuda})
  endif()
  install(FILES ${libraries} DESTINATION lib/millrace COMPONENT server)
  install(CODE "
    if(CMAKE_INSTALL_DO_STRIP)
      file(GLOB libraries \$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/lib/millrace/libtorch*.so)
      execute_process(COMMAND ${CMAKE_STRIP} --strip-unneeded \${libraries}
        COMMAND_ERROR_IS_FATAL ANY)
    endif()" COMPONENT server)

  file(GLOB licenses ${MILLRACE_TORCH_ROOT}/../torch-*.dist-info/licenses)
  if(NOT licenses)  # An archive of libtorch brings none.
    file(GLOB licenses ${MILLRACE_TORCH_ROOT}/licenses)
  endif()
  if(licenses)
    install(DIRECTORY ${licenses}/ DESTINATION ${millrace_doc}/libtorch COMPONENT server)
  else()
    install(CODE "message(WARNING \"${MILLRACE_TORCH_ROOT} has no licenses/: \"
      \"whoever passes libtorch on has to add PyTorch's licence and those of its parts.\")"
      COMPONENT server)
  endif()
endfunction()

install(FILES README.md CHANGELOG.md SECURITY.md DESTINATION ${millrace_doc} COMPONENT doc)
install(DIRECTORY docs DESTINATION ${millrace_doc} COMPONENT doc)
foreach(component server cli)
  install(FILES LICENSE NOTICE DESTINATION ${millrace_doc} COMPONENT ${component})
endforeach()
if(MILLRACE_WORKER)
  install(TARGETS millrace-worker RUNTIME DESTINATION bin COMPONENT server)
  millrace_install_libtorch()
endif()
if(MILLRACE_RPC)
  install(TARGETS millrace-server RUNTIME DESTINATION bin COMPONENT server)
  install(FILES server/measuring/plot_tuning.py DESTINATION ${millrace_python} COMPONENT server)
  install(TARGETS millrace RUNTIME DESTINATION bin COMPONENT cli)
  install(DIRECTORY client/compile/ DESTINATION ${millrace_python}/millrace_compile COMPONENT cli
    FILES_MATCHING PATTERN *.py)
endif()
