# How every module, test and fuzz target is declared, so that flags live in one place.

add_library(pf_flags INTERFACE)
target_compile_options(pf_flags INTERFACE
  -Wall -Wextra -Wshadow -Werror -fno-omit-frame-pointer
  $<$<COMPILE_LANGUAGE:CXX>:-Wconversion>)
target_compile_definitions(pf_flags INTERFACE _FILE_OFFSET_BITS=64)
target_include_directories(pf_flags INTERFACE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # gcc 12 reports false maybe-uninitialized and dangling cases inside coroutine frames.
  target_compile_options(pf_flags INTERFACE -Wno-maybe-uninitialized)
endif()
if(PF_SANITIZE)
  target_compile_options(pf_flags INTERFACE -fsanitize=${PF_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(pf_flags INTERFACE -fsanitize=${PF_SANITIZE})
  if(PF_SANITIZE STREQUAL "thread")
    # Tests that count allocations define the operators that TSan's library also has.
    target_link_options(pf_flags INTERFACE -Wl,-z,muldefs)
  endif()
endif()
if(PF_FUZZ)
  target_compile_options(pf_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(PF_PLANTED_BUGS)
  target_compile_definitions(pf_flags INTERFACE PF_PLANTED_BUGS=1)
endif()

# pf_module(NAME SOURCES a.cpp ... DEPS other ...): a static library pf_NAME.
function(pf_module name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(pf_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(pf_${name} PUBLIC pf_flags ${ARG_DEPS})
endfunction()

# pf_test(NAME SOURCES a_test.cpp ... DEPS pf_x ...): a googletest program run by ctest.
# LABELS defaults to unit; TIMEOUT is in seconds.
function(pf_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT;LABELS" "SOURCES;DEPS;ARGS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} pf_flags GTest::gtest GTest::gtest_main)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
    if(PF_SANITIZE STREQUAL "thread")
      set(ARG_TIMEOUT 600)  # ten times slower
    endif()
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  add_test(NAME ${name} COMMAND ${name} ${ARG_ARGS})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS ${ARG_LABELS}
    SKIP_REGULAR_EXPRESSION "\\[  SKIPPED \\]")  # a single case: else nobody would know
endfunction()

# pf_fuzz(NAME SOURCES foo_fuzz.cpp DEPS pf_x ...): with PF_FUZZ a libFuzzer program; otherwise a
# program that replays the corpus in tests/fuzz/NAME/ (every file once) as a unit test.
function(pf_fuzz name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  set(corpus ${CMAKE_SOURCE_DIR}/tests/fuzz/${name})
  if(PF_FUZZ)
    add_executable(${name} ${ARG_SOURCES})
    target_link_libraries(${name} PRIVATE ${ARG_DEPS} pf_flags)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${name} ${ARG_SOURCES} ${CMAKE_SOURCE_DIR}/tests/fuzz/replay_main.cpp)
    target_link_libraries(${name} PRIVATE ${ARG_DEPS} pf_flags)
    add_test(NAME ${name} COMMAND ${name} ${corpus})
    set_tests_properties(${name} PROPERTIES TIMEOUT 120 LABELS unit)
  endif()
endfunction()
