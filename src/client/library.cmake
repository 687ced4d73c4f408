# libpfbd as others get it: shared, static, headers and a pkg-config file.

add_library(pfbd_shared SHARED pfbd_shared.cpp)
target_link_libraries(pfbd_shared PRIVATE -Wl,--whole-archive pf_pfbd -Wl,--no-whole-archive)
target_link_options(pfbd_shared PRIVATE
  -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/pfbd.map)
set_target_properties(pfbd_shared PROPERTIES
  OUTPUT_NAME pfbd
  VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}
  LINK_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/pfbd.map)

# One archive of all modules that the API needs.
set(parts pf_pfbd pf_client pf_net pf_wire pf_uring pf_runtime pf_proto pf_base)
set(script "create libpfbd.a\n")
foreach(part ${parts})
  string(APPEND script "addlib $<TARGET_FILE:${part}>\n")
endforeach()
string(APPEND script "save\nend\n")
file(GENERATE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/libpfbd.mri CONTENT "${script}")
add_custom_command(
  OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/libpfbd.a
  COMMAND ${CMAKE_COMMAND} -E rm -f libpfbd.a
  COMMAND ${CMAKE_AR} -M < libpfbd.mri
  WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}
  DEPENDS ${parts})
add_custom_target(pfbd_static ALL DEPENDS ${CMAKE_CURRENT_BINARY_DIR}/libpfbd.a)

file(RELATIVE_PATH PFBD_INCLUDE_FROM_PC
  /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix/${CMAKE_INSTALL_INCLUDEDIR})
configure_file(pfbd.pc.in pfbd.pc @ONLY)

install(TARGETS pfbd_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT client)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/libpfbd.a
  DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT client)
install(FILES ${PROJECT_SOURCE_DIR}/include/pfbd.h ${PROJECT_SOURCE_DIR}/include/pfbd.hpp
  ${PROJECT_SOURCE_DIR}/include/pf_client_api.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT client)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/pfbd.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT client)
