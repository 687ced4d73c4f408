# Nothing is built that includes upwards: every module waits for the check, which runs again when a
# source has changed.
file(GLOB_RECURSE layered CONFIGURE_DEPENDS
  ${CMAKE_SOURCE_DIR}/src/*.cpp ${CMAKE_SOURCE_DIR}/src/*.hpp ${CMAKE_SOURCE_DIR}/src/*.h
  ${CMAKE_SOURCE_DIR}/src/*.c)
add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/layering.stamp
  COMMAND ${CMAKE_SOURCE_DIR}/scripts/check_layering.py
  COMMAND ${CMAKE_COMMAND} -E touch ${CMAKE_BINARY_DIR}/layering.stamp
  DEPENDS ${layered} ${CMAKE_SOURCE_DIR}/scripts/check_layering.py
  COMMENT "Checking which module includes which" VERBATIM)
add_custom_target(layering ALL DEPENDS ${CMAKE_BINARY_DIR}/layering.stamp)
