# What an installation has besides the programs and the library: units, examples of configuration, and
# the documentation that the units name. A unit starts the programs of its own installation.
set(unit_folder lib/systemd/system)
foreach(unit pureflash pfs pfconductor)
  install(CODE "
    file(READ \"${CMAKE_SOURCE_DIR}/deploy/systemd/${unit}.service\" text)
    string(REPLACE \"/usr/bin/\" \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}/\" text \"\${text}\")
    string(REPLACE \"/usr/share/doc/\" \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}/doc/\" text \"\${text}\")
    set(target \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${unit_folder}/${unit}.service\")
    message(STATUS \"Installing: \${target}\")
    file(WRITE \"\${target}\" \"\${text}\")")
endforeach()
install(FILES ${CMAKE_SOURCE_DIR}/deploy/pfs.toml ${CMAKE_SOURCE_DIR}/deploy/pfconductor.toml
  DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/pureflash/examples)
# Not README.md, which is about the sources and links into them: start.md is the way in here.
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE
  DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/pureflash)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/docs/reference ${CMAKE_SOURCE_DIR}/docs/operate
  DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/pureflash)
install(FILES ${CMAKE_SOURCE_DIR}/docs/start.md ${CMAKE_SOURCE_DIR}/docs/concepts.md ${CMAKE_SOURCE_DIR}/docs/guarantees.md
  DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/pureflash)
# Completion, where bash-completion and zsh look for it.
foreach(shell_file "bash bash-completion/completions/pfcli" "zsh zsh/site-functions/_pfcli")
  separate_arguments(shell_file)
  list(GET shell_file 0 shell)
  list(GET shell_file 1 file)
  install(CODE "
    execute_process(COMMAND \"$<TARGET_FILE:pfcli>\" completion ${shell} OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
    set(target \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}/${file}\")
    message(STATUS \"Installing: \${target}\")
    file(WRITE \"\${target}\" \"\${text}\")")
endforeach()
# Only there once it was built (docs/reference/fio.md).
install(FILES ${CMAKE_BINARY_DIR}/pfbd_fio.so DESTINATION ${CMAKE_INSTALL_LIBDIR} OPTIONAL)
